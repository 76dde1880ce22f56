// The system's colours, or light or dark ones. The choice is not stored.

import { find } from "./element.js";

export function theme() {
  const choice = find("theme");
  choice.addEventListener("change", () => {
    if (choice.value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice.value;
  });
}
