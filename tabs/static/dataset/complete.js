// Completes a tag while it is typed, in every input with data-complete: the dataset's own tags and those of a list that the
// user supplied. "filter" completes the last word of a filter, "tags" the last of several between commas.

import { esc, t } from '../easel.js';

export class Completion {
  constructor(d) {
    this.d = d;
    this.box = document.createElement('ul');
    this.box.className = 'ez-complete';
    this.box.setAttribute('role', 'listbox');
    this.box.hidden = true;
    d.append(this.box);
    d.on(d, 'input', (event) => { if (event.target.dataset?.complete) this.wait(event.target); });
    d.on(d, 'focusout', () => setTimeout(() => this.close(), 150));
    d.addEventListener('keydown', (event) => this.pressed(event), { capture: true, signal: d.aborter.signal });
    d.on(this.box, 'mousedown', (event) => { const row = event.target.closest('li'); if (row) { event.preventDefault(); this.take(Number(row.dataset.i)); } });
  }

  wait(input) { clearTimeout(this.timer); this.timer = setTimeout(() => this.look(input), 120); }

  /** [what stands before it, the word that is being typed]. */
  split(input) {
    const before = input.value.slice(0, input.selectionStart ?? input.value.length);
    const at = { filter: /(?:^|[\s(])-?(?:tag:|score:)?"?([^\s()":<>]*)$/, tags: /(?:^|[,，\n])\s*([^,，\n]*)$/, tag: /^\s*([^]*)$/ }[input.dataset.complete];
    const found = before.match(at);
    return found ? [before.slice(0, before.length - found[1].length), found[1]] : [before, ''];
  }

  async look(input) {
    const [, word] = this.split(input);
    if (word.trim().length < 1 || !this.d.name) { this.close(); return; }
    const answer = await this.d.ask('complete', { q: word, list: this.d.draft.list ?? this.d.lists[0] ?? '' }).catch(() => ({ tags: [] }));
    if (document.activeElement !== input || this.split(input)[1] !== word) return;
    this.input = input;
    this.tags = answer.tags;
    this.at = -1;
    this.draw();
  }

  draw() {
    this.box.hidden = !this.tags?.length;
    if (this.box.hidden) return;
    this.box.innerHTML = this.tags.map((tag, i) => `<li role="option" data-i="${i}" aria-selected="${i === this.at}" class="${esc(tag.category)}${i === this.at ? ' on' : ''}">
      <span>${esc(tag.shown)}${tag.alias ? ` <small>← ${esc(tag.alias)}</small>` : ''}</span><small>${tag.own ? t('complete.own', { n: tag.count }) : tag.count.toLocaleString()}</small></li>`).join('');
    const field = this.input.getBoundingClientRect(), part = this.d.getBoundingClientRect();
    Object.assign(this.box.style, { left: `${field.left - part.left}px`, top: `${field.bottom - part.top + 2}px`, width: `${Math.max(220, Math.min(field.width, 420))}px` });
  }

  close() { this.box.hidden = true; this.tags = undefined; }

  pressed(event) {
    if (this.box.hidden || event.target !== this.input) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { this.at = (this.at + step + this.tags.length) % this.tags.length; this.draw(); }
    else if (event.key === 'Escape') this.close();
    else if (event.key === 'Tab' || (event.key === 'Enter' && this.at >= 0)) this.take(Math.max(0, this.at));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  take(i) {
    const { input } = this, tag = this.tags[i], [before] = this.split(input), after = input.value.slice(input.selectionStart ?? input.value.length);
    const words = { filter: () => tag.name, tags: () => `${tag.shown}, `, tag: () => tag.shown }[input.dataset.complete]();
    input.value = before + words + after;
    input.selectionStart = input.selectionEnd = (before + words).length;
    this.close();
    input.dispatchEvent(new InputEvent('input', { bubbles: true }));
    clearTimeout(this.timer); // not what has just been taken once more
  }
}
