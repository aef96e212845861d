// <easel-workflow>: the workflow that is open. A form of its chosen inputs, a button that runs it, and beside them the node
// editor in a frame where it is installed, else a drawing of the graph. The server keeps what is open (/studio/workflow);
// while the editor is open its graph is the truth, and this part passes on what changes.

import { Live, ROOT, attempt, call, esc, feed, lang, t, toast } from './easel.js';
import { Editor } from './editor.js';
import { chooserHtml, fieldsHtml, valueOf } from './fields.js';
import { movable, svg } from './graph.js';
import { PARAMETERS } from './take.js';

const WIDE = matchMedia('(min-width: 901px)');
const SEEN = 'easel.workflow.serial';

class Workflow extends Live {
  lists = { templates: [], saved: [] };

  start() {
    this.innerHTML = `<div class="ez-bar top"></div><div class="ez-flow"><div class="form"><div class="fields"></div><div class="pick"></div>
      <easel-result kinds="generate"></easel-result></div><div class="stage"><div class="drawing"></div></div></div>`;
    this.piece = (name) => this.querySelector(`:scope .${name}`);
    document.cookie = `easel_theme=${document.body.classList.contains('dark') ? 'dark' : 'light'}; path=/; max-age=31536000; SameSite=Lax`;
    movable(this.piece('drawing'), this.aborter.signal);
    this.on(this, 'click', (event) => this.clicked(event));
    this.on(this, 'change', (event) => this.changed(event));
    this.on(this, 'submit', (event) => { event.preventDefault(); this.save(event.target); });
    this.on(this, 'dragover', (event) => event.preventDefault());
    this.on(this, 'drop', (event) => { event.preventDefault(); if (event.dataTransfer.files[0]) this.openFile(event.dataTransfer.files[0]); });
    this.on(document, 'paste', (event) => this.pasted(event));
    this.on(feed, 'change', () => { if (this.failed && feed.worker.state === 'ready' && this.offsetParent) this.load(); });
    this.seen = new IntersectionObserver(([entry]) => { if (entry.isIntersecting) this.load(); });
    this.seen.observe(this);
  }

  close() { this.seen.disconnect(); this.editor?.close(); }

  /** Asked each time the tab is opened: another tab may have sent a workflow here meanwhile. */
  async load() {
    this.failed = false;
    const answer = await Promise.all([call('workflow'), call('workflows')]).catch((error) => this.loadFailed(error));
    if (!answer) return;
    [this.data, this.lists] = answer;
    if (this.data.editor && !this.editor && WIDE.matches) this.openEditor();
    else this.intoEditor();
    this.draw();
  }

  /** A first start may take longer than a request waits: then what is missing is said, and asked for once more when the engine is ready. */
  loadFailed(error) {
    if (this.data) { toast(error.message, true); return; }
    this.paint(`<p class="bad">${esc(error.message)}</p><p><button data-what="again">${t('workflow.again')}</button></p>`, this.piece('fields'));
    this.failed = feed.worker.state !== 'ready';
  }

  take(data) {
    if (!data) return false;
    this.data = data;
    this.draw();
    return true;
  }

  // ---- opening ----

  async open(what) { if (this.take(await attempt(call('workflow', what)))) this.intoEditor(); }

  async openFile(file) {
    const form = new FormData();
    form.append('file', file);
    if (this.take(await attempt(call('workflow/file', form)))) this.intoEditor();
  }

  /** A1111's text, wherever it is pasted on this tab; a picture or a workflow where nothing is being written. */
  pasted(event) {
    if (event.defaultPrevented || !this.offsetParent) return;
    const writing = event.target.closest?.('input, textarea'), file = event.clipboardData.files[0], text = event.clipboardData.getData('text');
    const isParameters = PARAMETERS.test(text);
    if (!isParameters && (writing || !(file || /^\s*\{/.test(text)))) return;
    event.preventDefault();
    if (isParameters) this.open({ parameters: text });
    else this.openFile(file ?? new File([text], 'workflow.json', { type: 'application/json' }));
  }

  openEditor() {
    this.editor = new Editor(this.piece('stage'), new URL('comfy/', location.origin + ROOT).href, {
      ready: () => this.editorReady(),
      changed: () => this.fromEditor(),
    });
    this.draw();
  }

  async editorReady() {
    if (this.data.serial > Number(localStorage.getItem(SEEN) ?? 0)) await this.intoEditor();
    else await this.fromEditor();
  }

  /** What was opened outside the editor goes into it, once. */
  async intoEditor() {
    if (!this.editor?.ready || this.data.serial <= Number(localStorage.getItem(SEEN) ?? 0)) return;
    localStorage.setItem(SEEN, this.data.serial);
    await attempt(this.editor.ask('load', { workflow: this.data.workflow, name: this.data.name }));
  }

  async fromEditor() {
    const told = await attempt(this.editor.ask('get'));
    if (told) this.take(await attempt(call('workflow', { edited: told.workflow })));
  }

  // ---- the form ----

  async changed(event) {
    const field = event.target.closest('[data-field]'), chosen = event.target.closest('[data-choose]');
    if (event.target.name === 'open') { this.openChosen(event.target); return; }
    if (event.target.name === 'file') { if (event.target.files[0]) this.openFile(event.target.files[0]); event.target.value = ''; return; }
    if (chosen) { this.choose(); return; }
    if (!field) return;
    const value = event.target.type === 'file' ? await this.upload(event.target.files[0]) : valueOf(event.target);
    if (value === undefined) return;
    const told = await attempt(call('workflow/values', { values: { [field.dataset.field]: value } }));
    if (told && this.editor?.ready) await attempt(this.editor.ask('set', { values: this.typed(told, field.dataset.field) }));
    this.take(told);
  }

  /** The value as the server has taken it: a number as a number, for the editor. */
  typed(told, key) {
    const field = told.fields.find((one) => one.key === key);
    return { [key]: field.kind === 'int' ? Number(field.value) : field.value };
  }

  async upload(file) {
    if (!file) return undefined;
    const form = new FormData();
    form.append('image', file);
    const kept = await attempt(call('upload/image', form, ROOT));
    return kept && (kept.subfolder ? `${kept.subfolder}/${kept.name}` : kept.name);
  }

  async choose() {
    const before = this.data.fields.map((field) => field.key);
    const on = [...this.querySelectorAll('[data-choose]:checked')].map((box) => box.dataset.choose);
    const keys = [...before.filter((key) => on.includes(key)), ...on.filter((key) => !before.includes(key))];
    const inputs = keys.map((key) => [key.slice(0, key.indexOf('.')), key.slice(key.indexOf('.') + 1)]);
    const told = await attempt(call('workflow/inputs', { inputs }));
    if (told && this.editor?.ready) await attempt(this.editor.ask('choose', { data: told.workflow.extra.linearData }));
    this.take(told);
  }

  // ---- buttons ----

  async clicked(event) {
    const what = event.target.closest('button[data-what]')?.dataset.what;
    if (what === 'again') this.load();
    if (what === 'run') this.run();
    if (what === 'editor') this.openEditor();
    if (what === 'whole') this.classList.toggle('whole');
    if (what === 'whole') this.draw();
  }

  async run() {
    if (!this.editor?.ready) { const job = await attempt(call('workflow/run', {})); if (job) this.load(); return; }
    const told = await attempt(this.editor.ask('queue'));
    if (told && told.queued === false) toast(t('workflow.refused'), true);
  }

  openChosen(select) {
    const [kind, name] = [select.value.slice(0, select.value.indexOf(':')), select.value.slice(select.value.indexOf(':') + 1)];
    select.value = '';
    if (kind) this.open({ [kind]: name });
  }

  async save(form) {
    const told = await attempt(call('workflow/save', { name: new FormData(form).get('name') }));
    if (!told) return;
    this.take(told);
    toast(t('workflow.saved_as', { name: told.name }));
    this.lists = (await attempt(call('workflows'))) ?? this.lists;
    form.closest('details').open = false;
    this.draw();
  }

  // ---- drawing ----

  draw() {
    if (!this.data || !this.piece) return;
    this.paint(this.barHtml(), this.piece('top'));
    this.paint(fieldsHtml(this.data.fields) || `<p class="sub">${t('workflow.noform')}</p>`, this.piece('fields'));
    this.paint(chooserHtml(this.data), this.piece('pick'));
    const open = Boolean(this.editor);
    const rows = new Map(this.data.nodes.map((row) => [row.id, row]));
    this.piece('drawing').hidden = open;
    if (!open) this.paint(svg(this.data.workflow, (node) => ({ title: this.titleOf(rows.get(String(node.id)), node), inputs: rows.get(String(node.id))?.inputs ?? [] })), this.piece('drawing'));
  }

  titleOf(row, node) { return (lang() === 'zh' ? row?.title_zh : row?.title) ?? node.title ?? node.type; }

  barHtml() {
    const option = (kind, value, words) => `<option value="${kind}:${esc(value)}">${esc(words)}</option>`, zh = lang() === 'zh';
    const families = [...new Set(this.lists.templates.map((one) => one.family))];
    const group = (family) => `<optgroup label="${esc(family)}">${this.lists.templates.filter((one) => one.family === family).map((one) => option('template', one.name, zh ? one.title_zh : one.title)).join('')}</optgroup>`;
    const saved = this.lists.saved.length ? `<optgroup label="${t('workflow.saved')}">${this.lists.saved.map((name) => option('saved', name, name)).join('')}</optgroup>` : '';
    return `<button class="primary" data-what="run">${t('workflow.run')}</button>
      <select name="open" aria-label="${t('workflow.open')}"><option value="">${t('workflow.open')}</option>${saved}${families.map(group).join('')}</select>
      <label class="ez-file">${t('workflow.file')}<input type="file" name="file" accept=".json,.txt,image/png,image/webp,image/jpeg"></label>
      <details class="ez-pop" data-key="save"><summary>${t('workflow.save')}</summary><form><label>${t('workflow.name')}<input type="text" name="name" required maxlength="100" value="${esc(this.data.name)}"></label>
      <button class="primary">${t('workflow.save')}</button></form></details><span class="n">${esc(this.data.name)}</span><span class="grow"></span>${this.toolsHtml()}`;
  }

  toolsHtml() {
    if (!this.data.editor) return `<span class="sub">${t('workflow.noeditor')} <code>pip install "easel-studio[editor]"</code></span>`;
    if (!this.editor) return `<button data-what="editor">${t('workflow.editor')}</button>`;
    return `<button data-what="whole">${t(this.classList.contains('whole') ? 'workflow.small' : 'workflow.whole')}</button>`;
  }
}
customElements.define('easel-workflow', Workflow);
