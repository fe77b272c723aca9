// Draws the live pictures that are near the window, and keeps the reader's choice of theme. Without it,
// and on paper, the still pictures stand.
(() => {
  "use strict";

  const {isDark, DARK, kinds} = livePictures;
  const root = document.documentElement;

  // ---- theme ----

  const remember = theme => {
    // A browser may forbid storage to pages opened from a file.
    try { localStorage.setItem("theme", theme); } catch { /* the choice lasts as long as the page */ }
  };

  const setUpTheme = redraw => {
    const button = document.getElementById("theme");
    const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember(root.dataset.theme);
      label();
      redraw();
    });
    DARK.addEventListener("change", () => { label(); redraw(); });
    label();
  };

  // ---- live pictures ----

  const isLive = figure => figure.classList.contains("is-live");

  const draw = async figure => {
    try {
      await figure.live.draw();
    } catch (error) {
      figure.classList.remove("is-live");
      console.error(error);
    }
  };

  const start = figure => {
    const data = JSON.parse(document.getElementById(figure.dataset.live).textContent);
    const swap = figure.querySelector(".swap");
    swap.hidden = false;
    swap.addEventListener("click", () => {
      const live = figure.classList.toggle("is-live");
      swap.textContent = live ? "Show the still picture" : "Show the live picture";
      if (live) draw(figure); else figure.live.release?.();
    });
    figure.classList.add("is-live");
    return kinds[data.kind](figure.querySelector(".live"), data);
  };

  const drawn = new Set();
  const observer = new IntersectionObserver(entries => entries.forEach(({target: figure, isIntersecting}) => {
    if (isIntersecting) {
      figure.live ??= start(figure);
      if (!drawn.has(figure) && isLive(figure)) draw(figure);
      drawn.add(figure);
    } else if (figure.live?.release && drawn.delete(figure)) {
      figure.live.release();
    }
  }), {rootMargin: "500px 0px"});
  document.querySelectorAll("figure[data-live]").forEach(figure => observer.observe(figure));
  setUpTheme(() => drawn.forEach(figure => isLive(figure) && draw(figure)));
})();
