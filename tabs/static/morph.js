// Brings an element to new HTML and leaves alone what is the same: focus, open details, what is typed in it, running
// transitions and a button between mouse down and up survive. Items of a list are told apart by data-key.

export function morph(element, html) {
  const template = document.createElement('template');
  template.innerHTML = html;
  children(element, template.content);
}

function children(here, there) {
  const keyed = new Map([...here.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  let at = here.firstChild;
  for (const wanted of [...there.childNodes]) {
    const key = wanted.dataset?.key, node = key ? keyed.get(key) : at;
    if (!node || node.nodeName !== wanted.nodeName || node.dataset?.key !== key) { here.insertBefore(wanted, at); continue; }
    if (node === at) at = at.nextSibling;
    else here.insertBefore(node, at);
    update(node, wanted);
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
}

function update(node, wanted) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
    return;
  }
  const opened = node.nodeName === 'DETAILS', free = node !== document.activeElement;
  if (free && node.nodeName === 'TEXTAREA' && node.defaultValue !== wanted.defaultValue) node.value = wanted.defaultValue;
  if (node.type === 'checkbox' && node.hasAttribute('checked') !== wanted.hasAttribute('checked')) node.checked = wanted.hasAttribute('checked');
  if (node.nodeName === 'OPTION' && node.hasAttribute('selected') !== wanted.hasAttribute('selected')) node.selected = wanted.hasAttribute('selected');
  for (const { name } of [...node.attributes]) if (!wanted.hasAttribute(name) && !(opened && name === 'open')) node.removeAttribute(name);
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) === value || (opened && name === 'open')) continue;
    node.setAttribute(name, value);
    if (free && name === 'value' && node.nodeName === 'INPUT') node.value = value;  // a new value wins over an old one that was typed
  }
  if (!node.nodeName.includes('-')) children(node, wanted);
}
