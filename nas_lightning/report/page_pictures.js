// How each kind of live picture is drawn: a function of its box and its data that gives `draw`, which draws
// it anew in the colours of the page, and `release` where it holds what a browser has few of.
const livePictures = (() => {
  "use strict";

  const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58",
    "#b5de2b", "#fde725"];
  const SCALE = VIRIDIS.map((colour, index) => [index / (VIRIDIS.length - 1), colour]);
  const CONFIG = {displaylogo: false, responsive: true, scrollZoom: false, displayModeBar: false};
  // WebGL cannot inherit the page's font.
  const FONT = getComputedStyle(document.body).fontFamily;
  const COARSE = matchMedia("(pointer: coarse)").matches;
  const DARK = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : DARK.matches;
  const variable = name => getComputedStyle(root).getPropertyValue(name).trim();

  // ---- small parts ----

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  // Plotly reads its texts as a kind of HTML.
  const plain = text => String(text).replace(/[&<>]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[c]);
  const number = value =>
    value === null || value === undefined ? "not finite" : String(+value.toPrecision(4));
  const channels = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));

  // Colours are chosen for white paper: on a dark page, the dark ones are mixed with white.
  const onPage = colour => {
    const [r, g, b] = channels(colour);
    const light = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
    if (!isDark() || light > 0.45) return colour;
    const share = 0.25 + (0.45 - light);
    return "#" + [r, g, b].map(c => Math.round(c + (255 - c) * share).toString(16).padStart(2, "0")).join("");
  };
  const faint = colour => `rgba(${channels(colour).join(",")},0.16)`;

  const axis = (more = {}) => ({gridcolor: variable("--rule"), zerolinecolor: variable("--rule"),
    linecolor: variable("--rule"), automargin: true, ...more});
  const layout = more => ({
    font: {color: variable("--ink"), family: FONT, size: 12}, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", margin: {l: 52, r: 12, t: 10, b: 44}, showlegend: false,
    hovermode: "closest", uirevision: "kept", dragmode: COARSE ? false : "zoom",
    hoverlabel: {bgcolor: variable("--card"), bordercolor: variable("--rule"),
      font: {color: variable("--ink")}}, ...more});

  const panel = (box, title, ...tools) => {
    const plot = make("div", {className: "plot"});
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `${title}, live; the values stand in the report's tables`);
    const head = make("div", {className: "panel-head"}, ...(title ? [make("span",
      {className: "panel-title", textContent: title})] : []), ...tools);
    box.append(make("div", {className: "panel"}, head, plot));
    return plot;
  };

  const choice = (label, names, chosen, changed) => {
    const select = make("select");
    names.forEach((name, index) => select.append(make("option", {value: index, textContent: name})));
    select.value = chosen;
    select.addEventListener("change", () => changed(Number(select.value)));
    return make("label", {className: "choice"}, make("span", {textContent: label}), select);
  };

  const colourBar = () => {
    const bar = make("div", {className: "bar"});
    const strip = make("span", {className: "strip"});
    strip.style.background = `linear-gradient(to right, ${VIRIDIS.join(", ")})`;
    const [low, high, label] = [make("span"), make("span"), make("span", {className: "bar-label"})];
    bar.append(low, strip, high, label);
    bar.say = (from, to, text) => {
      low.textContent = number(from);
      high.textContent = number(to);
      label.textContent = text;
    };
    return bar;
  };

  // ---- curves ----

  // The outline of the range, one closed piece for every stretch without a gap.
  const band = curve => {
    const [x, y] = [[], []];
    let start = 0;
    for (let at = 0; at <= curve.x.length; at += 1) {
      if (at < curve.x.length && curve.low[at] !== null && curve.high[at] !== null) continue;
      if (at > start) {
        if (x.length) { x.push(null); y.push(null); }
        const piece = curve.x.slice(start, at);
        x.push(...piece, ...piece.slice().reverse());
        y.push(...curve.low.slice(start, at), ...curve.high.slice(start, at).reverse());
      }
      start = at + 1;
    }
    return {x, y};
  };

  const curveTraces = (curve, entry, shown) => {
    const colour = entry.original ? variable("--ink") : onPage(entry.colour);
    const ranged = curve.low !== undefined;
    const line = {type: "scatter", mode: curve.x.length > 1 ? "lines" : "markers", x: curve.x, y: curve.mean,
      visible: shown, line: {color: colour, width: entry.original ? 3 : 1.8}, marker: {color: colour},
      text: curve.x.map(() => plain(entry.name)),
      hovertemplate: "<b>%{text}</b><br>epoch %{x}: %{y:.4g}"
        + (ranged ? "<br>from %{customdata[0]:.4g} to %{customdata[1]:.4g}" : "") + "<extra></extra>"};
    if (!ranged) return [line];
    line.customdata = curve.x.map((_, at) => [curve.low[at], curve.high[at]]);
    return [{type: "scatter", mode: "lines", ...band(curve), visible: shown, fill: "toself",
      fillcolor: faint(colour), line: {width: 0}, hoverinfo: "skip"}, line];
  };

  const curves = (box, data) => {
    const hidden = new Set();
    const legend = make("div", {className: "legend"});
    const panels = make("div", {className: "panels"});
    legend.setAttribute("role", "group");
    legend.setAttribute("aria-label", "Architectures: press to hide or show");
    box.append(legend, panels);

    const drawPanel = (plot, part, log) => {
      const traces = part.series.flatMap(curve =>
        curveTraces(curve, data.legend[curve.entry], !hidden.has(curve.entry)));
      return Plotly.react(plot, traces, layout({xaxis: axis({title: {text: "epoch"}}),
        yaxis: axis({title: {text: plain(part.y_label)},
          ...(log.checked ? {type: "log", dtick: 1} : {type: "linear"})})}), CONFIG);
    };
    const drawn = data.panels.map(part => {
      const log = make("input", {type: "checkbox", checked: part.log});
      const plot = panel(panels, part.title,
        make("label", {className: "log"}, log, make("span", {textContent: " log"})));
      const draw = () => drawPanel(plot, part, log);
      log.addEventListener("change", draw);
      return draw;
    });
    const swatches = [];
    const draw = () => {
      swatches.forEach((swatch, index) => {
        const entry = data.legend[index];
        swatch.style.background = entry.original ? variable("--ink") : onPage(entry.colour);
      });
      drawn.forEach(one => one());
    };
    const buttons = data.legend.map((entry, index) => {
      const swatch = make("span", {className: "swatch"});
      const button = make("button", {type: "button", title: `width ${entry.width}c, depth ${entry.depth}`},
        swatch, make("span", {textContent: entry.name}));
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        if (!hidden.delete(index)) hidden.add(index);
        press();
      });
      swatches.push(swatch);
      return button;
    });
    const press = () => {
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(!hidden.has(index))));
      all.textContent = hidden.size ? "Show all" : "Hide all";
      draw();
    };
    const all = make("button", {type: "button", className: "all", textContent: "Hide all"});
    all.addEventListener("click", () => {
      if (hidden.size) hidden.clear(); else buttons.forEach((_, index) => hidden.add(index));
      press();
    });
    legend.append(...buttons, all);
    return {draw};
  };

  // ---- surfaces ----

  const hasWebGL = () => {
    const context = make("canvas").getContext("webgl");
    // A browser allows few contexts at a time: this one is not needed any more.
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context);
  };

  const surfaceTrace = (surface, data, flat) => {
    // Plotly counts z[y][x]; alpha is x.
    const turned = surface.beta.map((_, b) => surface.alpha.map((_, a) => surface.z[a][b]));
    const height = data.log ? value => value > 0 ? Math.log10(value) : null : value => value;
    const [low, high] = [height(data.low), height(data.high)];
    const trace = {x: surface.alpha, y: surface.beta, z: turned.map(row => row.map(height)),
      text: turned.map(row => row.map(number)), colorscale: SCALE, showscale: false,
      hovertemplate: "α %{x:.3g}, β %{y:.3g}<br>%{text}<extra></extra>"};
    return flat
      ? {...trace, type: "contour", zmin: low, zmax: high, zauto: false, autocontour: false,
        contours: {start: low, end: high, size: (high - low) / 20, coloring: "heatmap"},
        line: {width: 0.6, color: "rgba(255,255,255,0.55)"}}
      : {...trace, type: "surface", cmin: low, cmax: high,
        contours: {z: {show: false}}, lighting: {ambient: 0.75, diffuse: 0.5, specular: 0.05}};
  };

  const surfaceLayout = (data, flat, camera) => {
    if (flat) {
      return layout({xaxis: axis({title: {text: "α"}, constrain: "domain"}),
        yaxis: axis({title: {text: "β"}, scaleanchor: "x", constrain: "domain"})});
    }
    const z = {title: {text: ""}};
    if (data.log) {
      const [from, to] = [Math.log10(data.low), Math.log10(data.high)];
      z.range = [from, to];
      z.tickvals = Array.from({length: 4}, (_, at) => from + (to - from) * at / 3);
      z.ticktext = z.tickvals.map(value => String(+(10 ** value).toPrecision(2)));
    } else {
      z.range = [data.low, data.high];
      z.nticks = 5;
    }
    const side = {gridcolor: variable("--rule"), zerolinecolor: variable("--rule"),
      color: variable("--ink"), showspikes: false, nticks: 5};
    return layout({margin: {l: 0, r: 0, t: 0, b: 0}, scene: {xaxis: {...side, title: {text: "α"}},
      yaxis: {...side, title: {text: "β"}}, zaxis: {...side, ...z}, aspectmode: "manual",
      aspectratio: {x: 1, y: 1, z: 0.75}, camera, dragmode: "orbit"}});
  };

  const surfaces = (box, data) => {
    const webgl = hasWebGL();
    const names = data.surfaces.map(surface => surface.name);
    const sides = [{index: 0}, ...(names.length > 1 ? [{index: names.length - 1}] : [])];
    let flat = !webgl || data.view === "map";
    let camera = {eye: {x: -1.25, y: -1.25, z: 0.85}, center: {x: 0, y: 0, z: -0.15}};
    const tools = make("div", {className: "tools"});
    const panels = make("div", {className: "panels"});
    const bar = colourBar();
    bar.say(data.low, data.high, data.label + (data.log ? " (logarithmic scale)" : ""));
    box.append(tools, panels, bar);

    const draw = () => Promise.all(sides.map(async side => {
      const surface = data.surfaces[side.index];
      await Plotly.react(side.plot, [surfaceTrace(surface, data, flat)],
        surfaceLayout(data, flat, camera), CONFIG);
      if (!side.heard) {
        side.heard = true;
        side.plot.on("plotly_relayouting", event => turn(side, event));
        side.plot.on("plotly_relayout", event => turn(side, event));
      }
    }));
    const turn = (side, event) => {
      const seen = event["scene.camera"];
      if (!seen || JSON.stringify(seen) === JSON.stringify(camera)) return;
      camera = seen;
      sides.filter(other => other !== side && other.heard)
        .forEach(other => Plotly.relayout(other.plot, {"scene.camera": camera}));
    };
    const release = () => sides.forEach(side => {
      const contexts = [...side.plot.querySelectorAll("canvas")].map(canvas => canvas.getContext("webgl"));
      Plotly.purge(side.plot);
      side.heard = false;
      contexts.forEach(context => context?.getExtension("WEBGL_lose_context")?.loseContext());
    });
    sides.forEach((side, place) => {
      side.plot = panel(panels, "", choice(place ? "Right" : "Left", names, side.index, index => {
        side.index = index;
        draw();
      }));
      side.plot.setAttribute("aria-label", `${data.label}, live; the still picture shows all architectures`);
    });
    if (webgl) {
      tools.append(choice("View", ["surface (drag to turn both)", "map from above"], flat ? 1 : 0, index => {
        release();
        flat = index === 1;
        draw();
      }));
    }
    return {draw, release};
  };

  // ---- width-depth plane ----

  const plane = (box, data) => {
    let measure = 0;
    const tools = make("div", {className: "tools"});
    const panels = make("div", {className: "panels"});
    const bar = colourBar();
    box.append(tools, panels, bar);
    const plots = data.spaces.map(space => panel(panels, space.title));
    const census = space => {
      const total = space.cells.reduce((sum, cell) => sum + cell.count, 0);
      const most = Math.max(...space.cells.map(cell => cell.count));
      return {type: "scatter", mode: "markers", x: space.cells.map(cell => cell.width),
        y: space.cells.map(cell => cell.depth), hovertemplate: "%{text}<extra></extra>",
        text: space.cells.map(cell => `width ${number(cell.width)}c, depth ${cell.depth}<br>`
          + `${cell.count} of ${total} wirings (${number(100 * cell.count / total)} %)`),
        marker: {symbol: "square", color: variable("--census"), line: {width: 0},
          size: space.cells.map(cell => 6 + 30 * Math.sqrt(cell.count / most))}};
    };
    const marks = (space, shown) => {
      const values = space.marks.map(mark => shown ? mark.values[shown.key] ?? null : null);
      const group = (keep, marker) => {
        const kept = space.marks.map((mark, at) => ({...mark, value: values[at]})).filter(keep);
        return {type: "scatter", mode: "markers", x: kept.map(mark => mark.x), y: kept.map(mark => mark.y),
          hovertemplate: "%{text}<extra></extra>",
          text: kept.map(mark => `<b>${plain(mark.name)}</b><br>width ${number(mark.width)}c, depth `
            + `${mark.depth}` + (shown ? `<br>${plain(shown.label)}: ${number(mark.value)}` : "")),
          marker: {size: 13, line: {color: variable("--ink"), width: 1.2}, ...marker(kept)}};
      };
      return [
        group(mark => mark.value === null, kept => ({color: variable("--ink"),
          symbol: kept.map(mark => mark.original ? "diamond-open" : "circle-open")})),
        group(mark => mark.value !== null, kept => ({color: kept.map(mark => mark.value),
          symbol: kept.map(mark => mark.original ? "diamond" : "circle"), colorscale: SCALE,
          cmin: shown.low, cmax: shown.high > shown.low ? shown.high : shown.low + 1, showscale: false}))];
    };
    const draw = () => {
      const shown = data.measures[measure];
      if (shown) bar.say(shown.low, shown.high, shown.label);
      bar.hidden = !shown;
      data.spaces.forEach((space, at) => {
        const widths = [...space.cells, ...space.marks].map(one => one.width);
        const depths = [...space.cells, ...space.marks].map(one => one.depth);
        const around = (values, room) => [Math.min(...values) - room, Math.max(...values) + room];
        Plotly.react(plots[at], [census(space), ...marks(space, shown)], layout({
          xaxis: axis({title: {text: "width (c)"}, range: around(widths, 0.4)}),
          yaxis: axis({title: {text: "depth"}, range: around(depths, 0.6), dtick: 1})}), CONFIG);
      });
    };
    if (data.measures.length > 1) {
      tools.append(choice("Colour", data.measures.map(one => one.label), 0, index => {
        measure = index;
        draw();
      }));
    }
    return {draw};
  };

  // ---- accuracy at convergence ----

  const accuracy = (box, data) => {
    const panels = make("div", {className: "panels"});
    box.append(panels);
    const plots = data.panels.map(part => panel(panels, part.title));
    const draw = () => data.panels.forEach((part, at) => {
      const base = part.marks.find(mark => mark.index === 0 && mark.mean !== null);
      const apart = (mark, end) =>
        mark[end] === null || mark.mean === null ? 0 : Math.abs(mark[end] - mark.mean);
      const colours = part.marks.map(mark => mark.index === 0 ? variable("--ink") : variable("--accent"));
      Plotly.react(plots[at], [{type: "scatter", mode: "markers", x: part.marks.map(mark => mark.index),
        y: part.marks.map(mark => mark.mean), marker: {size: 9, color: colours},
        error_y: {type: "data", symmetric: false, array: part.marks.map(mark => apart(mark, "high")),
          arrayminus: part.marks.map(mark => apart(mark, "low")), color: variable("--accent"),
          thickness: 1.5},
        text: part.marks.map(mark => `<b>${plain(mark.name)}</b><br>${number(mark.mean)} `
          + `(${number(mark.low)} to ${number(mark.high)})`), hovertemplate: "%{text}<extra></extra>"}],
      layout({xaxis: axis({title: {text: "index of the architecture"},
          dtick: part.marks.length > 20 ? 2 : 1}),
        yaxis: axis({title: {text: plain(data.y_label)}}),
        shapes: base ? [{type: "line", xref: "paper", x0: 0, x1: 1, y0: base.mean, y1: base.mean,
          line: {dash: "dash", width: 1, color: variable("--ink")}}] : []}), CONFIG);
    });
    return {draw};
  };

  return {isDark, DARK, kinds: {curves, surfaces, plane, accuracy}};
})();
