"""Write evaluation reports as Markdown and plots."""
