// Makes elements without ever reading text as HTML: names and addresses come from untrusted clients.

export const byId = (id) => document.getElementById(id);

/** An element with properties (`class`, `on…`, `data-…`, `aria-…`, others as attributes) and children: elements or text. */
export function h(tag, properties = {}, ...children) {
  return dress(document.createElement(tag), properties, children);
}

/** The same for an SVG element. */
export function svg(tag, properties = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function dress(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Shows or hides an element, with a text if one is given. */
export function show(element, isShown, text) {
  element.hidden = !isShown;
  if (text !== undefined) element.textContent = text;
}
