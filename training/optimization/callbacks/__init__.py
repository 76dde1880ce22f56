"""Report progress, throughput and routing while a stage trains."""
