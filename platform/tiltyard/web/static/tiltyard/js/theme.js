// Runs before the page is painted, so that a chosen theme does not flash in late.
(() => {
  const KEY = "tiltyard-theme";
  const NAMES = { auto: "as the system", light: "light", dark: "dark" };
  const ORDER = ["auto", "light", "dark"];

  const stored = () => {
    try {
      return localStorage.getItem(KEY) in NAMES ? localStorage.getItem(KEY) : "auto";
    } catch {
      return "auto"; // storage is switched off
    }
  };
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  const label = (button, theme) => {
    button.title = `Colour theme: ${NAMES[theme]}`;
    button.setAttribute("aria-label", button.title);
  };

  let theme = stored();
  apply(theme);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme-switch");
    if (!button) return;
    button.hidden = false;
    label(button, theme);
    button.addEventListener("click", () => {
      theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
      apply(theme);
      label(button, theme);
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // the choice then holds for this page only
      }
    });
  });
})();
