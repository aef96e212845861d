// A grid of any number of cells that keeps only the visible ones in the page, with selection by mouse and keyboard.
// It knows nothing of what a cell shows.

import { morph } from './morph.js';

export class VirtualGrid {
  /** box: an element of fixed height. render(index) -> HTML of a cell; key(index) names its item. Calls
   * picked(index, selected Set, event) and seen(first, end) with what came into view. */
  constructor(box, { cell = 160, ratio = 1, render, key = String, picked = () => {}, opened = () => {}, seen = () => {}, signal }) {
    Object.assign(this, { box, cell, ratio, render, key, picked, opened, seen, count: 0, last: 0, cursor: 0, selected: new Set() });
    box.classList.add('ez-grid');
    box.tabIndex = 0;
    box.setAttribute('role', 'listbox');
    box.setAttribute('aria-multiselectable', 'true');
    box.innerHTML = '<div></div>';
    this.pad = box.firstElementChild;
    box.addEventListener('scroll', () => requestAnimationFrame(() => this.draw()), { signal });
    box.addEventListener('click', (event) => this.clicked(event), { signal });
    box.addEventListener('dblclick', (event) => { const i = this.index(event); if (i >= 0) this.opened(i); }, { signal });
    box.addEventListener('keydown', (event) => this.pressed(event), { signal });
    this.held(signal);
    new ResizeObserver(() => this.draw()).observe(box);
  }

  set(count) {
    this.count = count;
    this.selected = new Set([...this.selected].filter((i) => i < count));
    this.cursor = Math.min(this.cursor, Math.max(0, count - 1));
    this.draw();
  }

  get columns() { return Math.max(1, Math.floor(this.box.clientWidth / this.cell)); }

  draw() {
    const columns = this.columns, width = this.box.clientWidth / columns, height = width * this.ratio;
    if (!width) return;
    this.height = height;
    this.pad.style.height = `${Math.ceil(this.count / columns) * height}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - 1) * columns;
    const end = Math.min(this.count, first + (Math.ceil(this.box.clientHeight / height) + 3) * columns);
    this.seen(first, end);
    let html = '';
    for (let i = first; i < end; i++) {
      const place = `left:${(i % columns) * width}px;top:${Math.floor(i / columns) * height}px;width:${width}px;height:${height}px`;
      const on = this.selected.has(i);
      html += `<div class="cell${on ? ' on' : ''}${i === this.cursor ? ' at' : ''}" role="option" aria-selected="${on}" data-key="${this.key(i)}" data-i="${i}" style="${place}">${this.render(i)}</div>`;
    }
    if (html !== this.shown) { morph(this.pad, html); this.shown = html; }
  }

  index(event) { return Number(event.target.closest('.cell')?.dataset.i ?? -1); }

  /** A finger that stays on a cell adds it to the chosen ones or takes it away, as Ctrl does. */
  held(signal) {
    let timer, down = false, done = false;
    const stop = () => { down = false; clearTimeout(timer); };
    this.box.addEventListener('pointerdown', (event) => {
      const i = this.index(event);
      done = false;
      down = event.pointerType !== 'mouse' && i >= 0;
      if (down) timer = setTimeout(() => { done = true; this.choose(i, { ctrlKey: true }); }, 450);
    }, { signal });
    for (const name of ['pointerup', 'pointercancel', 'scroll']) this.box.addEventListener(name, stop, { signal });
    this.box.addEventListener('contextmenu', (event) => { if (down) event.preventDefault(); }, { signal });
    this.box.addEventListener('click', (event) => { if (done) { done = false; event.stopImmediatePropagation(); } }, { signal, capture: true });
  }

  clicked(event) { const i = this.index(event); if (i >= 0) this.choose(i, event); }

  choose(i, event = {}) {
    if (event.shiftKey) {
      const [a, b] = [Math.min(this.last, i), Math.max(this.last, i)];
      this.selected = new Set(Array.from({ length: b - a + 1 }, (_, k) => a + k));
    } else if (event.ctrlKey || event.metaKey) {
      if (!this.selected.delete(i)) this.selected.add(i);
      this.last = i;
    } else { this.selected = new Set([i]); this.last = i; }
    this.cursor = i;
    this.show(i);
    this.draw();
    this.picked(i, this.selected, event);
  }

  all() { this.selected = new Set(Array.from({ length: this.count }, (_, i) => i)); this.draw(); this.picked(this.cursor, this.selected, {}); }

  none() { this.selected = new Set(); this.draw(); this.picked(this.cursor, this.selected, {}); }

  show(i) {
    const top = Math.floor(i / this.columns) * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + this.height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + this.height - this.box.clientHeight;
  }

  pressed(event) {
    const page = this.columns * Math.max(1, Math.floor(this.box.clientHeight / this.height));
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: page, PageUp: -page, Home: -this.count, End: this.count }[event.key];
    if (step) { event.preventDefault(); this.choose(Math.max(0, Math.min(this.count - 1, this.cursor + step)), { shiftKey: event.shiftKey }); }
    if (event.key === 'Enter' && this.count) { event.preventDefault(); this.opened(this.cursor); } // else it presses what then gets the focus
    if (event.key === 'Escape' && this.selected.size) this.none();
    if (event.key === 'a' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.all(); }
  }
}
