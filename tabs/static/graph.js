// A drawing of a workflow as SVG: nodes, links, groups; wheel, drag and pinch move it. Read-only.

import { esc } from './easel.js';

const TITLE = 30, ROW = 20, TOP = 14;
const HUES = { MODEL: 265, CLIP: 50, VAE: 0, CONDITIONING: 28, LATENT: 310, IMAGE: 210, MASK: 150, CONTROL_NET: 170 };
const ink = (type) => `hsl(${HUES[type] ?? [...String(type)].reduce((n, c) => n * 7 + c.charCodeAt(0), 0) % 360} 55% 55%)`;
const pair = (value, fallback) => (Array.isArray(value) || ArrayBuffer.isView(value) ? [Number(value[0]) || 0, Number(value[1]) || 0]
  : value && typeof value === 'object' ? [Number(value[0]) || 0, Number(value[1]) || 0] : fallback);

// A node's position is below its title.
/** What is drawn of a workflow: boxes by id, links, groups. `named`: (node) -> {title, inputs: [[name, value]]}. */
export function layout(workflow, named) {
  const boxes = new Map();
  for (const node of workflow.nodes) {
    const { title, inputs } = named(node), sockets = (node.inputs ?? []).filter((item) => !item.widget || item.link != null);
    const rows = Math.max(sockets.length, (node.outputs ?? []).length) + inputs.length;
    const [width, height] = pair(node.size, [260, 0]), closed = node.flags?.collapsed;
    boxes.set(String(node.id), {
      id: String(node.id), title, inputs, sockets, outputs: node.outputs ?? [], x: pair(node.pos, [0, 0])[0], y: pair(node.pos, [0, 0])[1] - TITLE,
      width: Math.max(width, 180), height: TITLE + (closed ? 0 : Math.max(height, TOP + rows * ROW)), closed, off: node.mode === 2 || node.mode === 4,
    });
  }
  const links = (workflow.links ?? []).map((row) => (Array.isArray(row) ? row : [row.id, row.origin_id, row.origin_slot, row.target_id, row.target_slot, row.type]));
  return { boxes, links, groups: workflow.groups ?? [] };
}

export function svg(workflow, named) {
  const { boxes, links, groups } = layout(workflow, named), all = [...boxes.values()];
  const left = Math.min(0, ...all.map((b) => b.x)) - 30, top = Math.min(0, ...all.map((b) => b.y)) - 30;
  const right = Math.max(300, ...all.map((b) => b.x + b.width)) + 30, bottom = Math.max(200, ...all.map((b) => b.y + b.height)) + 30;
  const drawn = groups.map((group) => {
    const [x, y, w, h] = group.bounding ?? [0, 0, 0, 0];
    return `<g class="group"><rect x="${+x}" y="${+y}" width="${+w}" height="${+h}" rx="8"/><text x="${+x + 10}" y="${+y + 22}">${esc(group.title)}</text></g>`;
  });
  const wires = links.map((row) => wire(boxes, row)).join('');
  return `<svg class="ez-graph" viewBox="${left} ${top} ${right - left} ${bottom - top}" preserveAspectRatio="xMidYMin meet" role="img">
    ${drawn.join('')}${wires}${all.map(box).join('')}</svg>`;
}

function wire(boxes, [, origin, slot, target, place, type]) {
  const from = boxes.get(String(origin)), to = boxes.get(String(target));
  if (!from || !to) return '';
  const item = (to.sockets ?? []).findIndex((one) => one.link === arguments[1][0]);
  const [x, y] = [from.x + from.width, from.y + (from.closed ? TITLE / 2 : TITLE + TOP + slot * ROW)];
  const [u, v] = [to.x, to.y + (to.closed ? TITLE / 2 : TITLE + TOP + (item < 0 ? place : item) * ROW)], bend = Math.max(30, Math.abs(u - x) / 2);
  return `<path d="M${x} ${y} C${x + bend} ${y} ${u - bend} ${v} ${u} ${v}" stroke="${ink(type)}"/>`;
}

function box(b) {
  const cut = (text, room) => { const chars = Math.max(4, Math.floor(room / 7)); const one = String(text).replace(/\s+/g, ' '); return esc(one.length > chars ? `${one.slice(0, chars - 1)}…` : one); };
  const at = (i) => b.y + TITLE + TOP + i * ROW, rows = Math.max(b.sockets.length, b.outputs.length);
  const sockets = b.closed ? '' : b.sockets.map((s, i) => `<circle cx="${b.x}" cy="${at(i)}" r="5" fill="${ink(s.type)}"/><text x="${b.x + 12}" y="${at(i) + 4}">${cut(s.label ?? s.name, b.width / 2)}</text>`).join('')
    + b.outputs.map((s, i) => `<circle cx="${b.x + b.width}" cy="${at(i)}" r="5" fill="${ink(s.type)}"/><text class="end" x="${b.x + b.width - 12}" y="${at(i) + 4}">${cut(s.label ?? s.name, b.width / 2)}</text>`).join('');
  const values = b.closed ? '' : b.inputs.map(([name, value], i) => `<text class="name" x="${b.x + 12}" y="${at(rows + i) + 4}">${cut(name, b.width * 0.42)}</text>
    <text class="value" x="${b.x + b.width * 0.47}" y="${at(rows + i) + 4}">${cut(value, b.width * 0.5)}</text>`).join('');
  return `<g class="node${b.off ? ' off' : ''}" data-key="n${esc(b.id)}"><rect x="${b.x}" y="${b.y}" width="${b.width}" height="${b.height}" rx="8"/>
    <rect class="head" x="${b.x}" y="${b.y}" width="${b.width}" height="${TITLE}" rx="8"/><text class="title" x="${b.x + 12}" y="${b.y + 20}">${cut(b.title, b.width - 20)}</text>${sockets}${values}</g>`;
}

/** Lets a person move the drawing in `box` about. Two fingers or the wheel with Ctrl enlarge it; one finger scrolls the
 * page until it has been enlarged. */
export function movable(box, signal) {
  const fingers = new Map();
  const picture = () => box.querySelector('svg');
  const view = () => picture().viewBox.baseVal;
  const zoom = (factor, x, y) => {
    const now = view(), area = picture().getBoundingClientRect(), fx = (x - area.left) / area.width, fy = (y - area.top) / area.height;
    const width = Math.min(40000, Math.max(150, now.width * factor)), height = now.height * (width / now.width);
    now.x += (now.width - width) * fx; now.y += (now.height - height) * fy; now.width = width; now.height = height;
  };
  box.addEventListener('wheel', (event) => {
    if (!picture() || !(event.ctrlKey || event.metaKey || box.classList.contains('held'))) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, event.clientX, event.clientY);
  }, { signal, passive: false });
  box.addEventListener('pointerdown', (event) => { if (!picture()) return; fingers.set(event.pointerId, event); if (event.pointerType === 'mouse') { box.setPointerCapture(event.pointerId); box.classList.add('held'); } }, { signal });
  box.addEventListener('pointermove', (event) => {
    const before = fingers.get(event.pointerId);
    if (!before || !picture()) return;
    const now = view(), scale = now.width / picture().getBoundingClientRect().width;
    if (fingers.size === 1) { now.x -= (event.clientX - before.clientX) * scale; now.y -= (event.clientY - before.clientY) * scale; }
    if (fingers.size === 2) {
      const other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId);
      const far = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
      zoom(far(before, other) / far(event, other), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
    }
    fingers.set(event.pointerId, event);
  }, { signal });
  for (const name of ['pointerup', 'pointercancel', 'pointerleave']) box.addEventListener(name, (event) => { fingers.delete(event.pointerId); }, { signal });
  box.addEventListener('pointerleave', () => box.classList.remove('held'), { signal });
}
