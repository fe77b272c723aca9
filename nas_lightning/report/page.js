// Theme, camera and show/hide of the live figures, which plotly draws. Without this, and on paper, the still
// figures stand.
(() => {
  "use strict";

  const root = document.documentElement;
  const DARK = matchMedia("(prefers-color-scheme: dark)");
  const COARSE = matchMedia("(pointer: coarse)").matches;
  const CONFIG = {displaylogo: false, responsive: true, scrollZoom: false, displayModeBar: false};
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : DARK.matches;

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // What is large stands in the page compressed.
  const inflate = identifier => {
    const bytes = Uint8Array.from(atob(document.getElementById(identifier).textContent), c => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  let loading;
  const plotly = () => loading ??= inflate("plotly").then(text => {
    document.head.append(make("script", {textContent: text}));
  });

  const hasWebGL = () => {
    const context = make("canvas").getContext("webgl");
    // A browser allows few contexts at a time: this one is not needed any more.
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context);
  };

  // A copy with other colours; arrays of numbers stay the same ones.
  const recolour = (value, colours) => {
    if (typeof value === "string") return colours[value] ?? value;
    if (Array.isArray(value)) return value.map(part => recolour(part, colours));
    if (value?.constructor !== Object) return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, recolour(part, colours)]));
  };

  // Make the change of the button that shows a surface from above: its second one where it is flat at first.
  const seeFromAbove = (data, layout, first) => {
    const button = layout.updatemenus[0].buttons[0];
    const [change] = first ? button.args2 : button.args;
    data.forEach((trace, at) => Object.entries(change).forEach(([key, value]) => {
      const path = key.split(".");
      const last = path.pop();
      const owner = path.reduce((part, name) => part[name] ??= {}, trace);
      owner[last] = Array.isArray(value) ? value[at] : value;
    }));
  };

  // A line with its dashes and its marker, as plotly calls them, for the legend.
  const DASHES = {solid: "", dash: "7 3", dot: "2 3", dashdot: "7 3 2 3"};
  const MARKS = {
    circle: "M14 5m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0", square: "M11 2h6v6h-6z",
    "triangle-up": "M14 1l4 7h-8z", diamond: "M14 1l4 4l-4 4l-4 -4z",
    x: "M10.8 3.2l1.4 -1.4l1.8 1.8l1.8 -1.8l1.4 1.4l-1.8 1.8l1.8 1.8l-1.4 1.4l-1.8 -1.8l-1.8 1.8l-1.4 -1.4l1.8 -1.8z",
  };
  const line = (dash = "solid", symbol = "") => `<svg width="28" height="10" aria-hidden="true">`
    + `<path d="M0 5h28" stroke="currentColor" stroke-width="${symbol ? 1.8 : 3}" stroke-dasharray="${DASHES[dash]}"/>`
    + `<path d="${MARKS[symbol] ?? ""}" fill="currentColor"/></svg>`;

  const select = (label, names, chosen, changed) => {
    const options = names.map((name, value) => make("option", {value, textContent: name}));
    const element = make("select", {}, ...options);
    element.value = chosen;
    element.addEventListener("change", () => changed(Number(element.value)));
    return make("label", {className: "choice"}, make("span", {textContent: label}), element);
  };

  // ---- one figure: its panels, what a reader hides and chooses ----

  const open = async figure => {
    const content = JSON.parse(await inflate(figure.dataset.live));
    const {figures, legend, choices, each, choose, pair, dark} = content;
    const light = Object.fromEntries(Object.entries(dark).map(([one, other]) => [other, one]));
    const hidden = new Set();
    const swatches = [];
    const tools = make("div", {className: "legend"});
    const grid = make("div", {className: "panels"});
    figure.querySelector(".live").append(tools, grid);

    const twice = each && choices.length > 1;
    const spatial = figures.some(one => one.layout.scene);
    const bound = spatial && !hasWebGL();
    const panels = (twice ? [figures[0], figures[0]] : figures).map((one, at) => {
      const {data, layout} = recolour(one, {});
      const chosen = twice ? pair[at] : 0;
      const plot = make("div", {className: "plot"});
      const panel = {data, layout, plot, chosen};
      const {title} = layout.meta;
      Object.assign(layout, {uirevision: "kept", dragmode: COARSE ? false : "zoom"});
      // WebGL cannot inherit the page's font.
      layout.font.family = getComputedStyle(document.body).fontFamily;
      if (layout.height) plot.style.height = `${layout.height}px`;
      if (spatial && (content.flat || bound)) seeFromAbove(data, layout, content.flat);
      if (bound) delete layout.updatemenus;
      plot.setAttribute("role", "img");
      plot.setAttribute("aria-label", `${title || "Figure"}, live; the still figure shows the same`);
      const head = make("div", {className: "panel-head"});
      if (title) head.append(make("span", {className: "panel-title", textContent: title}));
      if (each) head.append(select(at ? "Right" : "Left", choices, chosen, index => {
        panel.chosen = index;
        draw();
      }));
      grid.append(make("div", {className: "panel"}, ...(head.firstChild ? [head] : []), plot));
      return panel;
    });
    if (!each && choices.length > 1) tools.append(select(choose, choices, 0, index => {
      panels.forEach(panel => { panel.chosen = index; });
      draw();
    }));

    let camera = "";
    const turn = (turned, event) => {
      const seen = event["scene.camera"];
      if (!seen || JSON.stringify(seen) === camera) return;
      camera = JSON.stringify(seen);
      panels.filter(panel => panel !== turned && panel.heard)
        .forEach(panel => Plotly.relayout(panel.plot, {"scene.camera": seen}));
    };

    const draw = async () => {
      await plotly();
      for (const panel of panels) {
        panel.data.forEach(trace => {
          if (legend.length || choices.length) {
            trace.visible = !hidden.has(trace.legendgroup)
              && (trace.meta === undefined || trace.meta === choices[panel.chosen]);
          }
        });
        await Plotly.react(panel.plot, panel.data, panel.layout, CONFIG);
        if (!panel.heard) {
          panel.heard = true;
          panel.plot.on("plotly_relayouting", event => turn(panel, event));
          panel.plot.on("plotly_relayout", event => turn(panel, event));
        }
      }
    };

    let painted = false;
    const paint = () => {
      if (painted === isDark()) return;
      painted = isDark();
      const colours = painted ? dark : light;
      panels.forEach(panel => {
        panel.data = recolour(panel.data, colours);
        panel.layout = recolour(panel.layout, colours);
      });
      swatches.forEach((swatch, at) => {
        swatch.style.color = painted ? dark[legend[at].colour] : legend[at].colour;
      });
    };

    const release = () => panels.filter(panel => panel.heard).forEach(panel => {
      const contexts = [...panel.plot.querySelectorAll("canvas")].map(canvas => canvas.getContext("webgl"));
      Plotly.purge(panel.plot);
      panel.heard = false;
      contexts.forEach(context => context?.getExtension("WEBGL_lose_context")?.loseContext());
    });

    if (legend.length) {
      const buttons = legend.map(({group, name, colour, dash, symbol}) => {
        const swatch = make("span", {className: "swatch", innerHTML: line(dash, symbol)});
        swatch.style.color = colour;
        const button = make("button", {type: "button", title: group}, swatch, make("span", {textContent: name}));
        button.addEventListener("click", () => {
          if (!hidden.delete(group)) hidden.add(group);
          press();
          draw();
        });
        swatches.push(swatch);
        return button;
      });
      const all = make("button", {type: "button", className: "all"});
      const press = () => {
        buttons.forEach((button, at) => button.setAttribute("aria-pressed", !hidden.has(legend[at].group)));
        all.textContent = hidden.size ? "Show all" : "Hide all";
      };
      all.addEventListener("click", () => {
        if (hidden.size) hidden.clear(); else legend.forEach(({group}) => hidden.add(group));
        press();
        draw();
      });
      tools.setAttribute("role", "group");
      tools.setAttribute("aria-label", "Press to hide or show");
      tools.append(...buttons, all);
      press();
    }
    return {draw, paint, release: spatial ? release : null};
  };

  // ---- the page: figures near the window are live, the theme is kept ----

  const figures = [...document.querySelectorAll("figure[data-live]")];
  const near = new Set();
  const isShown = figure => near.has(figure) && figure.classList.contains("is-live");

  const draw = async figure => {
    try {
      const live = await (figure.live ??= open(figure));
      live.paint();
      if (isShown(figure)) await live.draw(); else live.release?.();
    } catch (error) {
      figure.classList.remove("is-live");
      console.error(error);
    }
  };

  const observer = new IntersectionObserver(entries => entries.forEach(({target, isIntersecting}) => {
    near[isIntersecting ? "add" : "delete"](target);
    if (isIntersecting || target.live) draw(target);
  }), {rootMargin: "500px 0px"});
  figures.forEach(figure => {
    const swap = figure.querySelector(".swap");
    swap.hidden = false;
    swap.addEventListener("click", () => {
      const live = figure.classList.toggle("is-live");
      swap.textContent = live ? "Show the still picture" : "Show the live picture";
      draw(figure);
    });
    figure.classList.add("is-live");
    observer.observe(figure);
  });

  const button = document.getElementById("theme");
  const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  const repaint = () => {
    label();
    figures.filter(isShown).forEach(draw);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    // A browser may forbid storage to pages opened from a file: then the choice lasts as long as the page.
    try { localStorage.setItem("theme", root.dataset.theme); } catch { }
    repaint();
  });
  DARK.addEventListener("change", repaint);
  label();
})();
