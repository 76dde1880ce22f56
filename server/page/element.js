// Making elements, without a word of markup: the page's policy would refuse it, and text of others stays text.

export const find = (id) => document.getElementById(id);

/** An element; properties are set as they are named in the DOM, `aria-*` and `data-*` as attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Said by screen readers when they next have a moment. */
export function announce(text) {
  find("announcer").textContent = text;
}
