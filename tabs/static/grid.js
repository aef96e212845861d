// <easel-dataset>: the pictures of a dataset in a grid, the tags of the chosen ones with who said so and how sure,
// and everything people do to them: filter, accept and reject, bulk edits seen before they are made, undo, tagging, export.

import { BASE, Live, attempt, call, esc, feed, t, toast } from './easel.js';
import { jobHtml, listenForButtons } from './job.js';
import { VirtualGrid } from './virtual.js';

const field = (name, key, extra = '') => `<label>${t(key)}<input name="${name}" ${extra}></label>`;

class Dataset extends Live {
  info = { pictures: [], tags: [] };

  start() {
    this.innerHTML = `<div class="ez-bar top"></div><div class="job"></div>
      <div class="ez-bar find"><input type="search"><span class="n"></span></div>
      <div class="ez-data"><nav></nav><div class="box"></div><aside></aside></div><div class="tools"></div>`;
    this.grid = new VirtualGrid(this.querySelector('.box'), {
      cell: 150, signal: this.aborter.signal, render: (i) => this.cell(this.info.pictures[i]), picked: () => this.chosen(),
    });
    listenForButtons(this);
    this.on(this.querySelector('[type=search]'), 'input', () => { clearTimeout(this.wait); this.wait = setTimeout(() => this.load(), 200); });
    this.on(this, 'click', (event) => this.clicked(event));
    this.on(this, 'change', (event) => { if (event.target.name === 'dataset') this.use(event.target.value); if (event.target.type === 'file') this.upload(event.target.files); });
    this.on(this, 'submit', (event) => { event.preventDefault(); this[event.target.dataset.form](new FormData(event.target), event); });
    this.on(this, 'dragover', (event) => event.preventDefault());
    this.on(this, 'drop', (event) => { event.preventDefault(); this.upload(event.dataTransfer.files); });
    this.on(this, 'keydown', (event) => this.pressed(event));
    this.on(feed, 'change', () => this.follow());
    this.list();
  }

  get name() { return this.current ?? ''; }
  get path() { return `datasets/${encodeURIComponent(this.name)}`; }

  async list() {
    const answer = await attempt(call('datasets'));
    if (!answer) return;
    Object.assign(this, { names: answer.names, taggers: answer.taggers, demo: answer.demo });
    const kept = answer.current;
    this.current = this.names.includes(this.current) ? this.current : this.names.includes(kept) ? kept : this.names[0];
    await this.load();
  }

  async use(name) { this.current = name; this.picture = undefined; this.grid.selected.clear(); call('datasets/current', { name }); await this.load(); }

  async load() {
    if (this.name) {
      const words = this.querySelector('[type=search]').value;
      const info = await attempt(call(`${this.path}?filter=${encodeURIComponent(words)}`));
      if (info) this.info = info;
    } else this.info = { pictures: [], tags: [] };
    this.grid.set(this.info.pictures.length);
    this.draw();
    this.chosen();
  }

  cell(picture) {
    return `<img loading="lazy" alt="${esc(picture.name)}" src="${BASE}${this.path}/thumb/${picture.id}?v=${picture.hash}"><span>${esc(picture.caption || picture.name)}</span>`;
  }

  get ids() { return [...this.grid.selected].map((i) => this.info.pictures[i]?.id).filter((id) => id !== undefined); }

  async chosen() {
    const aside = this.querySelector('aside'), ids = this.ids;
    if (ids.length === 1) {
      const about = await attempt(call(`${this.path}/about/${ids[0]}`));
      if (about) { this.picture = about; aside.innerHTML = this.aboutHtml(about); }
    } else {
      this.picture = undefined;
      aside.innerHTML = ids.length ? `<p><b>${t('dataset.selected', { n: ids.length })}</b></p>${this.addHtml()}` : `<p class="empty">${t('dataset.hint')}</p>`;
    }
  }

  addHtml() {
    return `<form data-form="add" class="ez-bar"><input name="tag" type="text" list="ez-tags" aria-label="${t('dataset.addtag')}" placeholder="${t('dataset.addtag')}">
      <button class="primary">${t('dataset.add')}</button></form>`;
  }

  aboutHtml(about) {
    const tag = (a) => `<li class="${a.present ? 'on' : 'off'}${a.decision ? ' mine' : ''}"><span class="tag">${esc(a.shown)}</span>
      <small title="${esc(a.opinions.map((o) => `${o.tool} ${o.score.toFixed(3)}`).join('\n'))}">${esc(a.opinions.length ? a.opinions.map((o) => `${o.short} ${o.score.toFixed(2)}`).join(', ') : t('dataset.you'))}</small>
      <button data-tag="${esc(a.name)}" data-state="1" aria-label="${t('dataset.accept')} ${esc(a.shown)}" title="${t('dataset.accept')}" ${a.decision === 1 ? 'aria-pressed="true"' : ''}>✓</button>
      <button data-tag="${esc(a.name)}" data-state="-1" aria-label="${t('dataset.reject')} ${esc(a.shown)}" title="${t('dataset.reject')}" ${a.decision === -1 ? 'aria-pressed="true"' : ''}>✕</button></li>`;
    return `<img src="${BASE}${this.path}/picture/${about.id}?v=${about.hash}" alt="${esc(about.name)}">
      <p class="sub">${esc(about.name)} · ${about.width} × ${about.height}</p>
      <p class="ez-caption">${esc(about.caption) || `<i>${t('dataset.nocaption')}</i>`}</p>
      <ul class="ez-tags">${about.annotations.map(tag).join('')}</ul>${this.addHtml()}
      <form data-form="write"><label>${t('dataset.text')}<textarea name="text" rows="2">${esc(about.text)}</textarea></label><button>${t('dataset.savetext')}</button></form>`;
  }

  decide(tag, state, ids = this.ids) { return this.change(call(`${this.path}/decide`, { pictures: ids, tag, state })); }

  async change(promise) {
    const answer = await attempt(promise);
    if (answer) { if (answer.message) toast(answer.message); await this.load(); }
    return answer;
  }

  add(data) { const tag = data.get('tag').trim(); if (tag) this.decide(tag, 1); }
  write(data) { this.change(call(`${this.path}/caption`, { picture: this.picture.id, text: data.get('text') })); }

  async create(data) {
    const made = await attempt(call('datasets', { name: data.get('name'), folder: data.get('folder') }));
    if (made) { this.current = made.name; await this.list(); }
  }

  async tag(data) {
    const thresholds = {};
    for (const category of ['general', 'character']) if (data.get(category)) thresholds[category] = Number(data.get(category));
    const rules = { ...this.info.rules, trigger_word: data.get('trigger').trim() };
    await this.change(call(`${this.path}/rules`, rules));
    const settings = { dataset: this.name, tagger: data.get('tagger'), thresholds, overwrite: data.get('overwrite') === 'on', mcut: data.get('mcut') === 'on' ? ['general'] : [] };
    await attempt(call('jobs', { kind: 'tag', title: `${t('kind.tag')}: ${this.name}`, settings }));
  }

  async bulk(data, event) {
    const apply = event.submitter?.value === 'apply';
    const body = { action: data.get('action'), find: data.get('find'), replace: data.get('replace'), apply,
      filter: this.querySelector('[type=search]').value, pictures: this.ids.length > 1 ? this.ids : [], expected: apply ? this.digest : undefined };
    const answer = await (apply ? this.change(call(`${this.path}/bulk`, body)) : attempt(call(`${this.path}/bulk`, body)));
    const out = this.querySelector('.preview');
    if (!answer || !out) return;
    this.digest = apply ? undefined : answer.digest;
    const row = (c) => `<tr><td>${esc(c.name)}</td><td>${c.removed.map((tag) => `<del>− ${esc(tag)}</del>`).join(' ')} ${c.added.map((tag) => `<ins>+ ${esc(tag)}</ins>`).join(' ')}</td></tr>`;
    out.innerHTML = apply ? '' : `<p>${t('dataset.willchange', { n: answer.total })}</p>
      <div class="ez-scroll"><table class="ez-table">${answer.changes.map(row).join('')}</table></div>`;
  }

  async upload(files) {
    if (!this.name || !files.length) return;
    for (const file of files) {
      const form = new FormData();
      form.append('file', file);
      const answer = await fetch(`${BASE}${this.path}/upload`, { method: 'POST', body: form });
      if (!answer.ok) { const { error } = await answer.json().catch(() => ({ error: { en: `HTTP ${answer.status}` } })); toast(`${file.name}: ${error[document.documentElement.lang.startsWith('zh') ? 'zh' : 'en'] ?? error.en}`, true); }
    }
    await this.load();
  }

  async clicked(event) {
    const button = event.target.closest('button, a[data-filter]');
    if (!button) return;
    if (button.dataset.state) this.decide(button.dataset.tag, Number(button.dataset.state));
    if (button.dataset.filter !== undefined) { this.querySelector('[type=search]').value = button.dataset.filter; this.load(); }
    const act = button.dataset.act;
    if (act === 'demo') { const made = await attempt(call('datasets/demo', {})); if (made) { this.current = made.name; await this.list(); } }
    if (act === 'undo' || act === 'redo') this.change(call(`${this.path}/${act}`, {}));
    if (act === 'export') this.change(call(`${this.path}/export`, { suffix: '.txt' }));
    if (act === 'scan') this.change(call(`${this.path}/scan`, {}));
  }

  /** Review by keyboard: with the grid in focus, a accepts and r rejects the shown tags one after the other; n goes on. */
  pressed(event) {
    if (event.target.closest('input, textarea, select') || event.ctrlKey || event.metaKey) {
      if ((event.ctrlKey || event.metaKey) && event.key === 'z' && !event.target.closest('input, textarea')) { event.preventDefault(); this.change(call(`${this.path}/undo`, {})); }
      return;
    }
    const open = this.picture?.annotations.find((a) => !a.decision && a.present);
    if (event.key === 'a' && open) this.decide(open.name, 1);
    if (event.key === 'r' && open) this.decide(open.name, -1);
    if (event.key === 'n') this.grid.choose(Math.min(this.grid.count - 1, this.grid.cursor + 1));
  }

  follow() {
    const job = [...feed.jobs.values()].filter((j) => j.kind === 'tag' && j.settings?.dataset === this.name).sort((a, b) => b.created - a.created)[0];
    const html = job ? jobHtml(job) : '';
    if (html !== this.jobShown) { this.querySelector('.job').innerHTML = html; this.jobShown = html; }
    const mark = `${job?.id} ${job?.state}`;
    if (this.mark && mark !== this.mark && job?.state === 'done') this.load();
    this.mark = mark;
  }

  draw() {
    const { info, names = [], taggers = [] } = this, none = !this.name;
    this.querySelector('.top').innerHTML = `${names.length ? `<select name="dataset" aria-label="${t('tab.dataset')}">${names.map((n) => `<option ${n === this.name ? 'selected' : ''}>${esc(n)}</option>`).join('')}</select>` : ''}
      ${this.demo && !names.includes(this.demo) ? `<button class="primary" data-act="demo">${t('dataset.demo')}</button>` : ''}
      <details class="ez-pop"><summary>${t('dataset.new')}</summary><form data-form="create">${field('name', 'dataset.name', 'type="text" required')}${field('folder', 'dataset.folder', 'type="text"')}
      <p class="sub">${t('dataset.folderhint')}</p><button class="primary">${t('dataset.create')}</button></form></details>
      ${none ? '' : `<label class="ez-file">${t('dataset.upload')}<input type="file" accept="image/*" multiple></label>
      <button data-act="scan">${t('dataset.scan')}</button><button data-act="undo" ${info.undo ? `title="${esc(info.undo)}"` : 'disabled'}>${t('dataset.undo')}</button>
      <button data-act="redo" ${info.redo ? `title="${esc(info.redo)}"` : 'disabled'}>${t('dataset.redo')}</button><button data-act="export">${t('dataset.export')}</button>`}`;
    this.querySelector('[type=search]').placeholder = t('dataset.filter');
    this.querySelector('[type=search]').setAttribute('aria-label', t('dataset.filter'));
    this.querySelector('.n').textContent = none ? '' : t('dataset.count', { n: info.pictures.length, total: info.total ?? 0 });
    this.querySelector('nav').innerHTML = `<h3>${t('dataset.tags')} (${info.tags.length})</h3><div class="list">${info.tags.slice(0, 400).map((tag) =>
      `<a href="#" role="button" data-filter="${esc(tag.filter)}" onclick="event.preventDefault()">${esc(tag.shown)} <small>${tag.n}</small></a>`).join('')}</div>
      <datalist id="ez-tags">${info.tags.slice(0, 400).map((tag) => `<option value="${esc(tag.shown)}">`).join('')}</datalist>`;
    const problems = (info.problems ?? []).map((p) => `<li>${esc(p.path)}: ${esc(p[document.documentElement.lang.startsWith('zh') ? 'zh' : 'en'])}</li>`).join('');
    const opened = new Set([...this.querySelectorAll('.tools details[open]')].map((d) => d.dataset.name));
    const box = (name, title, inner) => `<details class="ez-box" data-name="${name}" ${opened.has(name) ? 'open' : ''}><summary>${t(title)}</summary>${inner}</details>`;
    if (this.querySelector('.tools form:focus-within')) return;
    this.querySelector('.tools').innerHTML = none ? `<p class="empty">${t('dataset.none')}</p>` : box('tag', 'dataset.tagger', `<form data-form="tag" class="ez-form-row">
        <label>${t('dataset.model')}<select name="tagger">${taggers.map((g) => `<option value="${esc(g.name)}">${esc(g.title)}</option>`).join('')}</select></label>
        ${field('general', 'dataset.general', `type="text" inputmode="decimal" placeholder="${taggers[0]?.thresholds?.general ?? 0.35}"`)}${field('character', 'dataset.character', `type="text" inputmode="decimal" placeholder="${taggers[0]?.thresholds?.character ?? 0.85}"`)}
        ${field('trigger', 'dataset.trigger', `type="text" value="${esc(info.rules?.trigger_word ?? '')}"`)}
        <label class="check"><input type="checkbox" name="mcut">${t('dataset.mcut')}</label><label class="check"><input type="checkbox" name="overwrite">${t('dataset.overwrite')}</label>
        <button class="primary" ${taggers.length ? '' : 'disabled'}>${t('dataset.run')}</button></form>`)
      + box('bulk', 'dataset.bulk', `<form data-form="bulk" class="ez-form-row"><label>${t('dataset.what')}<select name="action">${['add', 'remove', 'replace', 'regex'].map((a) => `<option value="${a}">${t('dataset.bulk.' + a)}</option>`).join('')}</select></label>
        ${field('find', 'dataset.find', 'type="text" required')}${field('replace', 'dataset.replace', 'type="text"')}
        <button value="preview">${t('dataset.preview')}</button><button class="primary" value="apply">${t('dataset.apply')}</button></form><div class="preview"></div>`)
      + (problems ? `<details class="ez-box" open><summary>${t('dataset.problems')}</summary><ul class="bad">${problems}</ul></details>` : '');
    this.follow();
  }
}
customElements.define('easel-dataset', Dataset);
