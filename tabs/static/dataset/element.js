// <easel-dataset>: the pictures of a dataset in a grid, the tags of the chosen ones with who said so and how sure, and
// what people do to them with mouse and keyboard. The tools below the grid are one file each; tools.js lists them.

import { BASE, Live, attempt, call, ended, esc, feed, hush, lang, lightbox, t, toast } from '../easel.js';
import { inputValue } from '../form.js';
import { jobHtml, listenForButtons } from '../job.js';
import { VirtualGrid } from '../virtual.js';
import { Completion } from './complete.js';
import { manyHtml, pictureHtml, pointAt } from './picture.js';
import { TOOLS, VERBS, stripHtml } from './tools.js';
import { topHtml } from './top.js';
import { editWords } from './words.js';

const NOTHING = { ids: [], pictures: [], tags: [], sources: [], problems: [], rules: {}, merge: {} };
const LATELY = 600; // seconds for which a finished job is still shown
const JOBS = ['tag', 'scan', 'measure', 'unpack'];

class Dataset extends Live {
  info = NOTHING;
  names = [];
  taggers = [];
  presets = [];
  lists = [];
  draft = {};
  refused = [];
  cells = new Map(); // id -> [id, hash, name, caption, what is drawn on it], of pictures that were in view
  answers = {};
  underway = new Set(); // decisions by keys that the server has not taken yet: {id, name, state}

  start() {
    this.innerHTML = `<div class="ez-bar top"></div><div class="job"></div>
      <div class="ez-bar find"><input type="search" data-complete="filter"><select name="order"></select><span class="n"></span></div>
      <div class="ez-data"><nav></nav><div class="box"></div><aside></aside></div><p class="sub keys"></p>
      <div class="ez-tools"><div class="strip" role="tablist"></div><div class="tool" role="tabpanel"></div></div>`;
    this.grid = new VirtualGrid(this.querySelector('.box'), {
      cell: 150, signal: this.aborter.signal, key: (i) => this.info.ids[i], render: (i) => this.cell(this.info.ids[i]),
      picked: () => this.chosen(), seen: (first, end) => this.need(first, end), opened: (i) => this.enlarge(i),
    });
    this.grid.box.setAttribute('aria-label', t('tab.dataset'));
    this.search = this.querySelector('[type=search]');
    this.completion = new Completion(this);
    listenForButtons(this);
    this.on(this.search, 'input', () => { this.keep({ filter: this.search.value }); clearTimeout(this.wait); this.wait = setTimeout(() => this.load(), 250); });
    this.on(this, 'click', (event) => this.clicked(event));
    this.on(this, 'input', (event) => this.typed(event.target));
    this.on(this, 'change', (event) => this.changed(event.target));
    this.on(this, 'submit', (event) => { event.preventDefault(); this.act(event.target.dataset.act, event.target, event); });
    this.on(this, 'dragover', (event) => { event.preventDefault(); this.classList.add('over'); });
    this.on(this, 'dragleave', () => this.classList.remove('over'));
    this.on(this, 'drop', (event) => { event.preventDefault(); this.classList.remove('over'); this.act('upload', { files: event.dataTransfer.files }); });
    this.on(this, 'keydown', (event) => this.pressed(event));
    this.on(document, 'keydown', (event) => this.elsewhere(event));
    for (const name of ['pointerover', 'focusin']) this.on(this, name, (event) => pointAt(this, event.target));
    this.on(feed, 'change', () => this.follow());
    this.list();
  }

  get path() { return `datasets/${encodeURIComponent(this.name ?? '')}`; }
  get ids() { return [...this.grid.selected].map((i) => this.info.ids[i]).filter((id) => id !== undefined); }
  get tool() { return TOOLS.find((tool) => tool.name === this.draft.tool) ?? TOOLS[0]; }

  maskUrl(id, name) { return `${BASE}${this.path}/mask/${id}?v=${name}`; }
  thumb(id, hash) { return `${BASE}${this.path}/thumb/${id}?v=${hash}`; }
  whole(id, hash) { return `${BASE}${this.path}/picture/${id}?v=${hash}`; }

  async list(wanted) {
    const answer = await attempt(call('datasets'));
    if (!answer) return;
    const { draft } = answer;
    Object.assign(this, answer);
    this.name = [wanted, this.name, draft.current].find((name) => this.names.includes(name)) ?? this.names[0];
    if (!this.search.value && draft.filter) this.search.value = draft.filter;
    await this.load();
  }

  async use(name) {
    Object.assign(this, { name, refused: [], info: NOTHING, answers: {} });
    this.cells.clear();
    this.grid.selected.clear();
    this.keep({ current: name });
    await this.load();
  }

  /** What is typed and chosen, for the next visit; sent when typing rests. */
  keep(values) {
    Object.assign(this.draft, values);
    this.unsent = { ...this.unsent, ...values };
    clearTimeout(this.sending);
    this.sending = setTimeout(() => { const sent = this.unsent; this.unsent = {}; call('datasets/draft', sent).catch(() => {}); }, 400);
  }

  /** The dataset as it is now. `calm` keeps the order of what is shown: what is being reviewed must not run away. */
  async load({ calm = false } = {}) {
    const chosen = new Set(this.ids), words = new URLSearchParams({ filter: this.search.value, order: this.draft.order ?? '' });
    let info = this.name ? await attempt(call(`${this.path}?${words}`)) : NOTHING;
    this.wrong = info?.wrong;
    if (this.wrong) info = this.info === NOTHING ? await attempt(call(this.path)) : this.info;
    if (!info) return;
    if (info !== this.info) info.ids = calm && this.draft.order ? inOrder(expanded(info.ids), this.info.ids) : expanded(info.ids);
    this.info = info;
    this.stale = new Set(this.cells.keys());
    for (const row of info.pictures) if (!this.cells.has(row[0])) { this.cells.set(row[0], row); this.stale.add(row[0]); }
    const places = chosen.size ? [...info.ids.keys()].filter((i) => chosen.has(info.ids[i])) : [];
    this.grid.selected = new Set(places);
    if (places.length) this.grid.cursor = places[0];
    this.grid.set(info.ids.length);
    this.draw();
    await Promise.all([this.chosen(), this.inquire()]);
  }

  /** What the open tool has to ask for; it is drawn with the answer. */
  async inquire() {
    const { tool, name } = this;
    if (!tool.asks || !name) return;
    const answer = await attempt(tool.asks(this));
    if (answer === undefined || tool !== this.tool || name !== this.name) return;
    this.answers[tool.name] = answer;
    this.drawTool();
  }

  ask(what, words = {}) { return call(`${this.path}/ask/${what}?${new URLSearchParams(words)}`); }

  cell(id) {
    const [, hash, name, caption, drawn = []] = this.cells.get(id) ?? [];
    if (!hash) return '<span>…</span>';
    const marks = drawn.map((kind) => `<i title="${t(`draw.${kind}`)}">${{ mask: '◩', crop: '▣' }[kind]}</i>`).join('');
    return `<img loading="lazy" alt="${esc(name)}" src="${this.thumb(id, hash)}">${marks ? `<b class="marks">${marks}</b>` : ''}<span>${esc(caption || name)}</span>`;
  }

  /** What is shown of a picture is asked for when it comes into view; one question at a time, then what is in view by then. */
  async need(first, end) {
    const { name } = this, ids = [...this.info.ids.slice(first, end)].filter((id) => !this.cells.has(id) || this.stale?.has(id));
    if (this.looking || !ids.length) return;
    this.looking = true;
    const found = await call(`${this.path}/cells?ids=${ids}`).catch(() => undefined);
    this.looking = false;
    if (!found) return;
    if (name === this.name) {
      for (const id of ids) { this.stale.delete(id); if (!this.cells.has(id)) this.cells.set(id, [id]); } // some may be gone
      for (const row of found) this.cells.set(row[0], row);
    }
    this.grid.draw();
  }

  chosen() {
    const coming = this.about().finally(() => { if (this.coming === coming) this.coming = undefined; });
    this.coming = coming;
    return coming;
  }

  async about() {
    const aside = this.querySelector('aside'), ids = this.ids;
    const about = ids.length === 1 ? await attempt(call(`${this.path}/about/${ids[0]}`)) : undefined;
    if (String(ids) !== String(this.ids)) return; // another was chosen meanwhile
    for (const { name, state } of [...this.underway].filter((one) => one.id === about?.id)) {
      const annotation = about.annotations.find((a) => a.name === name);
      if (annotation) annotation.decision = state;
    }
    this.picture = about;
    this.paint(about ? pictureHtml(this, about) : ids.length ? manyHtml(ids) : `<p class="empty">${this.nothingWords()}</p>`, aside);
    if (this.tool.follows) this.drawTool();
  }

  /** What to do where no picture is chosen. */
  nothingWords() {
    const { name, info } = this;
    return t(!name ? 'dataset.none' : info.ids.length ? 'dataset.hint' : info.total ? 'dataset.nomatch' : 'dataset.nopictures');
  }

  /** The picture at full size; the arrow keys go on through all that are shown. */
  enlarge(at) {
    const about = (id) => { const [, hash, name = ''] = this.cells.get(id) ?? []; return { url: this.whole(id, hash ?? ''), caption: name }; };
    if (at < this.info.ids.length) lightbox({ length: this.info.ids.length, at: (i) => about(this.info.ids[i]) }, at);
  }

  /** One edit, then the dataset as it is now. Edits follow each other: a quick second one waits for the first. */
  change(action, body = {}) {
    const next = (this.last ?? Promise.resolve()).then(async () => {
      const answer = await attempt(call(`${this.path}/${action}`, body));
      if (answer) await this.load({ calm: true });
      return answer;
    });
    this.last = next.catch(() => {});
    return next;
  }

  decide(tag, state, pictures = this.ids) { return this.change('decide', { pictures, tag, state }); }

  filter(words) { this.search.value = words; this.keep({ filter: words }); return this.load(); }

  async step(action) {
    const answer = await this.change(action);
    if (answer) toast(answer.event ? t(`dataset.${action}ne`, { title: editWords(answer.event) }) : t('dataset.nothing'));
  }

  /** Does what an element's data-act names; `element` is the button, form or input. */
  act(verb, element, event) { hush(); if (VERBS[verb]) attempt(Promise.resolve(VERBS[verb](this, element, event))); }

  clicked(event) {
    const button = event.target.closest('button, a[data-filter], a[data-act]');
    if (!button || button.form?.dataset.act && button.type === 'submit') return;
    const { state, tag, filter, act } = button.dataset;
    if (button.matches('a[role=button]')) event.preventDefault();
    if (state) this.decide(tag, Number(state));
    // Ctrl: these as well; Alt: without these
    if (filter !== undefined) this.filter(event.altKey ? `${this.search.value} -${filter}`.trim() : event.ctrlKey || event.metaKey ? `${this.search.value} ${filter}`.trim() : filter);
    if (act) this.act(act, button, event);
  }

  /** What is typed in a tool's form is kept under the tool's name. */
  typed(target) {
    const form = target.closest('form[data-keep]');
    if (form && target.name) this.keep({ [`${form.dataset.keep}.${target.name}`]: inputValue(target) });
    if (form) this.tool.typed?.(this, this.querySelector('.tool'));
  }

  changed(target) {
    if (target.name === 'dataset') this.use(target.value);
    if (target.name === 'order') { this.keep({ order: target.value }); this.load(); }
    if (target.dataset.change) this.act(target.dataset.change, target);
  }

  /** Review by keyboard: A accepts and R rejects the first tag that is still open, N goes on to the next picture. */
  pressed(event) {
    const writing = event.target.closest('input:not([type=checkbox]), textarea, select'), control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    if (control && !writing && key === 'z') { event.preventDefault(); this.step(event.shiftKey ? 'redo' : 'undo'); }
    if (control && !writing && key === 'y') { event.preventDefault(); this.step('redo'); }
    const tag = event.target.closest('nav .list a'), beside = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
    if (tag && beside) { event.preventDefault(); tag[beside]?.focus(); } // one stop of the Tab key for hundreds of tags
    if (writing || control || event.altKey || !'arnp'.includes(key)) return;
    if (this.coming && this.ids.length === 1 && this.picture?.id !== this.ids[0]) { // a quick key means the picture that comes
      this.coming.then(() => this.pressed(event));
      return;
    }
    const open = this.picture?.annotations.find((a) => !a.decision && a.present && a.category !== 'rating');
    const state = { a: 1, r: -1 }[key];
    if (state && open) {
      const one = { id: this.picture.id, name: open.name, state };
      open.decision = state; // so that a quick second key means the next tag
      this.underway.add(one);
      this.decide(one.name, state, [one.id]).finally(() => this.underway.delete(one));
    } else if (state || key === 'n') this.grid.choose(Math.min(this.grid.count - 1, this.grid.cursor + (this.grid.selected.size ? 1 : 0)));
    else if (key === 'p') this.grid.choose(Math.max(0, this.grid.cursor - 1));
  }

  /** What had the focus may be gone after an edit, or is the tab's name: keys then count as well. */
  elsewhere(event) {
    const { target } = event;
    if (this.contains(target) || target.closest?.('input, textarea, select, dialog') || document.querySelector('dialog[open]') || !this.checkVisibility()) return;
    this.pressed(event);
  }

  follow() {
    const job = [...feed.jobs.values()].filter((j) => JOBS.includes(j.kind) && j.settings?.dataset === this.name).sort((a, b) => b.created - a.created)[0];
    const shown = job && (!ended(job) || job.state !== 'done' || Date.now() / 1000 - job.finished < LATELY);
    this.paint(shown ? jobHtml(job) : '', this.querySelector('.job'));
    const mark = `${job?.id} ${job?.state}`;
    if (this.mark && mark !== this.mark && job && ended(job)) {
      this.refused = problemsOf(job);
      if (this.refused.length && this.going === job.id) { toast(t('dataset.leftout', { n: this.refused.length, tool: t('tool.check') }), true); this.keep({ tool: 'check' }); }
      this.load();
    }
    this.mark = mark;
    if (job && !ended(job)) this.going = job.id;
    if (this.tool.watches) this.drawTool();
  }

  drawTool() {
    const none = !this.name, panel = this.querySelector('.tool');
    this.paint(none ? '' : stripHtml(this.tool), this.querySelector('.strip'));
    this.paint(none ? '' : `<div data-key="${this.tool.name}-${esc(this.name)}">${this.tool.html(this, this.answers[this.tool.name])}</div>`, panel);
    this.tool.drawn?.(this, panel);
  }

  draw() {
    const { info } = this, none = !this.name;
    const option = (value, key) => `<option value="${value}" ${value === (this.draft.order ?? '') ? 'selected' : ''}>${t(key)}</option>`;
    this.paint(topHtml(this), this.querySelector('.top'));
    for (const part of ['.find', '.keys', 'nav', '.box', '.ez-tools']) this.querySelector(part).hidden = none;
    this.search.placeholder = t('dataset.filter');
    this.search.setAttribute('aria-label', t('dataset.filter'));
    const order = this.querySelector('[name=order]');
    order.setAttribute('aria-label', t('dataset.order'));
    this.paint(option('', 'dataset.order.name') + option('review', 'dataset.order.review'), order);
    this.querySelector('.keys').textContent = t('dataset.keys');
    this.querySelector('.n').className = this.wrong ? 'n bad' : 'n';
    this.querySelector('.n').textContent = none ? '' : this.wrong ? this.wrong[lang()] : t('dataset.count', { n: info.ids.length, total: info.total ?? 0 });
    this.paint(`<h3>${t('dataset.tags')} (${info.tags.length})</h3><div class="list">${info.tags.map((tag, i) =>
      `<a href="#" role="button" tabindex="${i ? -1 : 0}" data-key="${esc(tag.name)}" data-filter="${esc(tag.filter)}" class="${esc(tag.category)}">${esc(tag.shown)} <small>${tag.n === tag.all ? tag.n : `${tag.n} / ${tag.all}`}</small></a>`).join('')}</div><p class="sub">${t('dataset.taghint')}</p>`, this.querySelector('nav'));
    this.drawTool();
    this.grid.draw();
    this.follow();
  }
}

/** Numbers that came as first, count, first, count ... */
function expanded(runs) {
  const ids = [];
  for (let i = 0; i < runs.length; i += 2) for (let k = 0; k < runs[i + 1]; k++) ids.push(runs[i] + k);
  return ids;
}

/** Ids in the order in which they stood before; new ones at the end. */
function inOrder(ids, before) {
  const places = new Map(before.map((id, i) => [id, i]));
  return ids.sort((a, b) => (places.get(a) ?? before.length) - (places.get(b) ?? before.length));
}

/** Files that a job had to leave out, as {path, en, zh}. */
const problemsOf = (job) => Object.entries(job.result?.problems ?? {}).map(([path, problem]) => ({ path, ...problem }));

customElements.define('easel-dataset', Dataset);
