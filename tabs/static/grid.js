// <easel-dataset>: the pictures of a dataset in a grid, the tags of the chosen ones with who said so and how sure, and
// what people do to them with mouse and keyboard. The forms below are in tools.js.

import { BASE, Live, attempt, call, ended, esc, feed, lang, t, toast } from './easel.js';
import { jobHtml, listenForButtons } from './job.js';
import { changesHtml, rulesOf, toolsHtml } from './tools.js';
import { VirtualGrid } from './virtual.js';

const NOTHING = { pictures: [], tags: [], sources: [], findings: [], problems: [], rules: { always_first: [], blacklist: [], replacements: {} } };
const LATELY = 600; // seconds for which a finished tagging is still shown

class Dataset extends Live {
  info = NOTHING;
  names = [];
  taggers = [];
  presets = [];
  draft = {};
  refused = [];
  captions = new Map();

  start() {
    this.innerHTML = `<div class="ez-bar top"></div><div class="job"></div>
      <div class="ez-bar find"><input type="search"><select name="order"></select><span class="n"></span></div>
      <div class="ez-data"><nav></nav><div class="box"></div><aside></aside></div><p class="sub keys"></p><div class="tools"></div>`;
    this.grid = new VirtualGrid(this.querySelector('.box'), {
      cell: 150, signal: this.aborter.signal, key: (i) => this.info.pictures[i][0], render: (i) => this.cell(this.info.pictures[i]),
      picked: () => this.chosen(), seen: (first, end) => this.need(first, end),
    });
    this.grid.box.setAttribute('aria-label', t('tab.dataset'));
    this.search = this.querySelector('[type=search]');
    listenForButtons(this);
    this.on(this.search, 'input', () => { this.keep({ filter: this.search.value }); clearTimeout(this.wait); this.wait = setTimeout(() => this.load(), 250); });
    this.on(this, 'click', (event) => this.clicked(event));
    this.on(this, 'input', (event) => this.typed(event.target));
    this.on(this, 'change', (event) => this.changed(event.target));
    this.on(this, 'submit', (event) => { event.preventDefault(); this[event.target.dataset.form](new FormData(event.target), event.target); });
    this.on(this, 'dragover', (event) => event.preventDefault());
    this.on(this, 'drop', (event) => { event.preventDefault(); this.upload(event.dataTransfer.files); });
    this.on(this, 'keydown', (event) => this.pressed(event));
    this.on(feed, 'change', () => this.follow());
    this.list();
  }

  get path() { return `datasets/${encodeURIComponent(this.name ?? '')}`; }
  get ids() { return [...this.grid.selected].map((i) => this.info.pictures[i]?.[0]).filter((id) => id !== undefined); }

  async list(wanted) {
    const answer = await attempt(call('datasets'));
    if (!answer) return;
    const { names, taggers, presets, demo, draft } = answer;
    Object.assign(this, { names, taggers, presets, demo, draft });
    this.name = [wanted, this.name, draft.current].find((name) => names.includes(name)) ?? names[0];
    if (!this.search.value && draft.filter) this.search.value = draft.filter;
    await this.load();
  }

  async use(name) {
    Object.assign(this, { name, refused: [], info: NOTHING });
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

  async load() {
    const chosen = new Set(this.ids), words = new URLSearchParams({ filter: this.search.value, order: this.draft.order ?? '' });
    let info = this.name ? await attempt(call(`${this.path}?${words}`)) : NOTHING;
    this.wrong = info?.wrong;
    if (this.wrong) info = this.info === NOTHING ? await attempt(call(this.path)) : this.info;
    if (!info) return;
    this.info = info;
    this.stale = new Set(this.captions.keys());
    const places = info.pictures.flatMap(([id], i) => (chosen.has(id) ? [i] : []));
    this.grid.selected = new Set(places);
    if (places.length) this.grid.cursor = places[0];
    this.grid.set(info.pictures.length);
    this.draw();
    await this.chosen();
  }

  cell([id, hash, name]) {
    return `<img loading="lazy" alt="${esc(name)}" src="${BASE}${this.path}/thumb/${id}?v=${hash}"><span>${esc(this.captions.get(id) || name)}</span>`;
  }

  /** Captions are asked for when their pictures come into view. */
  need(first, end) {
    const ids = this.info.pictures.slice(first, end).map(([id]) => id).filter((id) => !this.captions.has(id) || this.stale?.delete(id));
    for (const id of ids) if (!this.captions.has(id)) this.captions.set(id, '');
    if (!ids.length) return;
    call(`${this.path}/captions?ids=${ids}`).then((found) => {
      for (const id of ids) this.captions.set(id, found[id] ?? '');
      this.grid.draw();
    }).catch(() => {});
  }

  async chosen() {
    const aside = this.querySelector('aside'), ids = this.ids;
    const about = ids.length === 1 ? await attempt(call(`${this.path}/about/${ids[0]}`)) : undefined;
    if (String(ids) !== String(this.ids)) return; // another was chosen meanwhile
    this.picture = about;
    const many = () => `<div data-key="many"><p><b>${t('dataset.selected', { n: ids.length })}</b></p>${this.addHtml()}<button data-act="remove">${t('dataset.takeout')}</button></div>`;
    this.paint(about ? this.aboutHtml(about) : ids.length ? many() : `<p class="empty">${t(this.name ? 'dataset.hint' : 'dataset.none')}</p>`, aside);
  }

  addHtml() {
    return `<form data-form="add" class="ez-bar"><input name="tag" type="text" autocomplete="off" list="ez-tags" aria-label="${t('dataset.addtag')}" placeholder="${t('dataset.addtag')}">
      <button class="primary">${t('dataset.add')}</button></form>`;
  }

  aboutHtml(about) {
    const judge = (a, state, key, sign) => `<button data-tag="${esc(a.name)}" data-state="${a.decision === state ? 0 : state}" aria-pressed="${a.decision === state}"
      aria-label="${t(key)}: ${esc(a.shown)}" title="${t(key)}">${sign}</button>`;
    const tag = (a) => `<li class="${a.present ? 'on' : 'off'}${a.decision ? ' mine' : ''}" data-key="${esc(a.name)}"><span class="tag">${esc(a.shown)}</span>
      <small title="${esc(a.opinions.map((o) => `${o.tool} ${o.score.toFixed(3)}`).join('\n'))}">${esc(a.opinions.length ? a.opinions.map((o) => `${o.short} ${o.score.toFixed(2)}`).join(', ') : t('dataset.you'))}</small>
      ${judge(a, 1, 'dataset.accept', '✓')}${judge(a, -1, 'dataset.reject', '✕')}</li>`;
    return `<div data-key="about-${about.id}"><img src="${BASE}${this.path}/picture/${about.id}?v=${about.hash}" alt="${esc(about.name)}">
      <p class="sub">${esc(about.name)} · ${about.width} × ${about.height}</p>
      <p class="ez-caption">${esc(about.caption) || `<i>${t('dataset.nocaption')}</i>`}</p>
      <ul class="ez-tags">${about.annotations.map(tag).join('')}</ul>${this.addHtml()}
      <form data-form="write"><label>${t('dataset.text')}<textarea name="text" rows="2">${esc(about.text)}</textarea></label>
      <div class="ez-bar"><button>${t('dataset.savetext')}</button><button type="button" data-act="remove">${t('dataset.takeout')}</button></div></form></div>`;
  }

  /** One edit, then the dataset as it is now. Edits follow each other: a quick second one waits for the first. */
  change(action, body = {}) {
    const next = (this.last ?? Promise.resolve()).then(async () => {
      const answer = await attempt(call(`${this.path}/${action}`, body));
      if (answer) await this.load();
      return answer;
    });
    this.last = next.catch(() => {});
    return next;
  }

  decide(tag, state, pictures = this.ids) { return this.change('decide', { pictures, tag, state }); }

  add(data, form) { const tag = data.get('tag').trim(); if (tag) { form.reset(); this.decide(tag, 1); } }

  write(data) { if (this.picture && data.get('text') !== this.picture.text) this.change('caption', { picture: this.picture.id, text: data.get('text') }); }

  async create(data, form) {
    const made = await attempt(call('datasets', { name: data.get('name'), folder: data.get('folder') }));
    if (made) { form.reset(); form.closest('details').open = false; await this.list(made.name); }
  }

  async tag(data) {
    const thresholds = {};
    for (const category of ['general', 'character']) if (data.get(category).trim()) thresholds[category] = data.get(category).trim().replace(',', '.');
    const trigger = data.get('trigger').trim();
    if (trigger !== this.info.rules.trigger_word && !(await this.change('rules', { ...this.info.rules, trigger_word: trigger }))) return;
    const settings = { dataset: this.name, tagger: data.get('tagger'), thresholds, overwrite: data.get('overwrite') === 'on', mcut: data.get('mcut') === 'on' ? ['general'] : [] };
    await attempt(call('jobs', { kind: 'tag', title: this.name, settings }));
  }

  async thresholds(data) {
    const thresholds = { general: data.get('general'), character: data.get('character') };
    await this.change('thresholds', { source: Number(data.get('source')), thresholds, mcut: data.get('mcut') ? ['general'] : [], enabled: data.get('enabled') === 'on', keep: data.get('keep') === 'on' });
  }

  rules(data) { this.change('rules', rulesOf(data, this.info.rules)).then((done) => { if (done) toast(t('rules.saved')); }); }

  async bulk(data) {
    this.edit = { action: data.get('action'), find: data.get('find'), replace: data.get('replace'), filter: this.search.value, pictures: this.ids.length > 1 ? this.ids : [] };
    const answer = await attempt(call(`${this.path}/bulk`, this.edit));
    if (answer) { this.edit.expected = answer.digest; this.querySelector('.preview').innerHTML = changesHtml(answer); }
  }

  async apply() {
    if (await this.change('bulk', { ...this.edit, apply: true })) { this.querySelector('.preview').innerHTML = ''; toast(t('dataset.applied')); }
  }

  async export(data) {
    const answer = await attempt(call(`${this.path}/export`, { suffix: data.get('suffix'), overwrite: data.get('overwrite') === 'on' }));
    if (!answer) return;
    this.refused = answer.problems;
    toast(t('dataset.exported', { done: answer.done, unchanged: answer.unchanged, n: answer.problems.length }), answer.problems.length > 0);
    this.draw();
  }

  async upload(files) {
    if (!this.name || !files.length) return;
    this.refused = [];
    for (const [i, file] of [...files].entries()) {
      toast(t('dataset.uploading', { i: i + 1, n: files.length }));
      const form = new FormData();
      form.append('file', file);
      await call(`${this.path}/upload`, form).catch((error) => this.refused.push({ path: file.name, en: error.message, zh: error.message }));
    }
    toast(t('dataset.uploaded', { n: files.length - this.refused.length, bad: this.refused.length }), this.refused.length > 0);
    await this.load();
  }

  filter(words) { this.search.value = words; this.keep({ filter: words }); this.load(); }

  async clicked(event) {
    const button = event.target.closest('button, a[data-filter]');
    if (!button) return;
    const { state, tag, filter, act } = button.dataset;
    if (state) this.decide(tag, Number(state));
    if (filter !== undefined) { event.preventDefault(); this.filter(filter); }
    if (act === 'demo') { const made = await attempt(call('datasets/demo', {})); if (made) await this.list(made.name); }
    if (act === 'undo' || act === 'redo') this.step(act);
    if (act === 'apply') this.apply();
    if (act === 'remove') this.change('remove', { pictures: this.ids });
    if (act === 'zip') location.href = `${BASE}${this.path}/zip`;
    if (act === 'scan') {
      const found = await this.change('scan');
      if (found) toast(t('dataset.scanned', { added: found.added, gone: found.gone }));
    }
  }

  async step(action) {
    const answer = await this.change(action);
    if (answer) toast(answer.event ? t(`dataset.${action}ne`, { title: t(`edit.${answer.event}`).replace(/^edit\./, '') }) : t('dataset.nothing'));
  }

  typed(target) {
    const form = target.closest('.tools form')?.dataset.form;
    if (form && ['tag', 'bulk', 'export'].includes(form) && target.name !== 'preset') this.keep({ [`${form}.${target.name}`]: target.type === 'checkbox' ? target.checked : target.value });
  }

  changed(target) {
    if (target.name === 'dataset') this.use(target.value);
    if (target.name === 'order') { this.keep({ order: target.value }); this.load(); }
    if (target.name === 'text') this.write(new FormData(target.form));
    if (target.name === 'preset') this.preset(target);
    if (target.type === 'file') { this.upload(target.files); target.value = ''; }
  }

  preset(select) {
    const preset = this.presets.find((one) => one.name === select.value), form = select.form;
    if (!preset) return;
    const values = { tagger: preset.tagger, general: preset.thresholds?.general ?? '', character: preset.thresholds?.character ?? '', trigger: form.trigger.value || preset.captions?.trigger_word || '' };
    for (const [name, value] of Object.entries(values)) { form.elements[name].value = value; this.typed(form.elements[name]); }
    form.elements.mcut.checked = preset.mcut?.includes('general') ?? false;
  }

  /** Review by keyboard: A accepts and R rejects the first tag that is still open, N goes on to the next picture. */
  pressed(event) {
    const writing = event.target.closest('input, textarea, select'), control = event.ctrlKey || event.metaKey;
    if (control && !writing && event.key.toLowerCase() === 'z') { event.preventDefault(); this.step(event.shiftKey ? 'redo' : 'undo'); }
    if (writing || control || event.altKey) return;
    const open = this.picture?.annotations.find((a) => !a.decision && a.present && a.category !== 'rating');
    const state = { a: 1, r: -1 }[event.key.toLowerCase()];
    if (state && open) {
      open.decision = state; // so that a quick second key means the next tag
      this.decide(open.name, state, [this.picture.id]);
    } else if (state || event.key.toLowerCase() === 'n') this.grid.choose(Math.min(this.grid.count - 1, this.grid.cursor + (this.grid.selected.size ? 1 : 0)));
  }

  follow() {
    const job = [...feed.jobs.values()].filter((j) => j.kind === 'tag' && j.settings?.dataset === this.name).sort((a, b) => b.created - a.created)[0];
    const shown = job && (!ended(job) || job.state !== 'done' || Date.now() / 1000 - job.finished < LATELY);
    this.paint(shown ? jobHtml(job) : '', this.querySelector('.job'));
    const mark = `${job?.id} ${job?.state}`;
    if (this.mark && mark !== this.mark && job && ended(job)) this.load();
    this.mark = mark;
  }

  draw() {
    const { info, names } = this, none = !this.name, option = (value, key) => `<option value="${value}" ${value === (this.draft.order ?? '') ? 'selected' : ''}>${t(key)}</option>`;
    const undo = (act, title) => `<button data-act="${act}" ${title ? `title="${esc(t(`edit.${title}`).replace(/^edit\./, ''))}"` : 'disabled'}>${t(`dataset.${act}`)}</button>`;
    this.paint(`${names.length ? `<select name="dataset" aria-label="${t('tab.dataset')}">${names.map((n) => `<option ${n === this.name ? 'selected' : ''}>${esc(n)}</option>`).join('')}</select>` : ''}
      ${this.demo && !names.includes(this.demo) ? `<button class="primary" data-act="demo">${t('dataset.demo')}</button>` : ''}
      <details class="ez-pop"><summary>${t('dataset.new')}</summary><form data-form="create"><label>${t('dataset.name')}<input name="name" type="text" required></label>
      <label>${t('dataset.folder')}<input name="folder" type="text"></label><p class="sub">${t('dataset.folderhint')}</p><button class="primary">${t('dataset.create')}</button></form></details>
      ${none ? '' : `<label class="ez-file">${t('dataset.upload')}<input type="file" accept="image/*" multiple></label>
      <button data-act="scan">${t('dataset.scan')}</button>${undo('undo', info.undo)}${undo('redo', info.redo)}`}`, this.querySelector('.top'));
    for (const part of ['.find', '.keys', 'nav', '.box']) this.querySelector(part).hidden = none;
    this.search.placeholder = t('dataset.filter');
    this.search.setAttribute('aria-label', t('dataset.filter'));
    const order = this.querySelector('[name=order]');
    order.setAttribute('aria-label', t('dataset.order'));
    this.paint(option('', 'dataset.order.name') + option('review', 'dataset.order.review'), order);
    this.querySelector('.keys').textContent = t('dataset.keys');
    this.querySelector('.n').className = this.wrong ? 'n bad' : 'n';
    this.querySelector('.n').textContent = none ? '' : this.wrong ? this.wrong[lang()] : t('dataset.count', { n: info.pictures.length, total: info.total ?? 0 });
    this.paint(`<h3>${t('dataset.tags')} (${info.tags.length})</h3><div class="list">${info.tags.map((tag) =>
      `<a href="#" role="button" data-key="${esc(tag.name)}" data-filter="${esc(tag.filter)}">${esc(tag.shown)} <small>${tag.n}</small></a>`).join('')}</div>
      <datalist id="ez-tags">${info.tags.map((tag) => `<option value="${esc(tag.shown)}">`).join('')}</datalist>`, this.querySelector('nav'));
    this.paint(none ? '' : `<div data-key="tools-${esc(this.name)}">${toolsHtml(this)}</div>`, this.querySelector('.tools'));
    this.grid.draw();
    this.follow();
  }
}
customElements.define('easel-dataset', Dataset);
