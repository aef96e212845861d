// Captions out and in: sidecars beside the pictures, the one file that a trainer reads, a zip; and lists of tags to complete.

import { BASE, call, esc, t, toast } from '../easel.js';
import { check, choice, line } from './fields.js';

const FORMATS = ['.txt', '.caption', 'kohya', 'kohya jsonl', 'ms-swift', 'diffusers jsonl', 'diffusers csv', 'diffsynth', 'masks beside', 'masks folder'];

function html(d) {
  const of = (name, otherwise = '') => d.draft[`export.${name}`] ?? otherwise, format = of('format', '.txt'), sidecars = format.startsWith('.'), masks = format.startsWith('masks'), written = sidecars || masks;
  const lists = d.lists.length ? choice('list', t('exchange.list'), d.lists.map((name) => [name, name]), d.draft.list ?? d.lists[0], 'data-change="taglist"') : '';
  return `<section class="ez-card" data-key="out"><h4>${t('exchange.out')}</h4><form data-act="export" data-keep="export" class="ez-form-row">
    ${choice('format', t('exchange.format'), FORMATS.map((f) => [f, t(`exchange.${f.replace('.', '').replaceAll(' ', '_')}`)]), format, 'data-change="redraw"')}
    ${written ? check('overwrite', t('dataset.overwritefiles'), false) : ''}${format === 'ms-swift' ? line('prompt', t('exchange.prompt'), of('prompt', 'Describe this image.')) : ''}
    <button class="primary">${t(masks ? 'exchange.writemasks' : sidecars ? 'dataset.write' : 'exchange.download')}</button><button type="button" data-act="zip">${t('dataset.zip')}</button></form>
    <p class="sub">${t(masks ? 'exchange.maskhint' : sidecars ? 'dataset.exporthint' : 'exchange.filehint')}</p></section>
    <section class="ez-card" data-key="in"><h4>${t('exchange.in')}</h4><form data-act="import" data-keep="import" class="ez-form-row">
    ${choice('read_as', t('exchange.readas'), [['tags', t('rules.tags')], ['caption', t('rules.text')], ['masks', t('exchange.masks')]], d.draft['import.read_as'] ?? 'tags')}
    <button class="primary">${t('exchange.sidecars')}</button><label class="ez-file">${t('exchange.file')}<input type="file" accept=".json,.jsonl,.csv" data-change="importfile"></label></form>
    <p class="sub">${t('exchange.inhint')}</p></section>
    <section class="ez-card" data-key="list"><h4>${t('exchange.lists')}</h4><form class="ez-form-row">${lists}<label class="ez-file">${t('exchange.addlist')}<input type="file" accept=".csv" data-change="addlist"></label></form>
    <p class="sub">${t('exchange.listhint')}</p></section>${d.refused.length ? `<ul class="ez-list bad">${d.refused.map((p) => `<li><b>${esc(p.path)}</b> ${esc(p[document.documentElement.lang.startsWith('zh') ? 'zh' : 'en'])}</li>`).join('')}</ul>` : ''}`;
}

function report(d, answer, key) {
  d.refused = answer.problems;
  toast(t(key, { done: answer.done, unchanged: answer.unchanged, n: answer.problems.length }), answer.problems.length > 0);
  return d.load();
}

async function sendFile(path, file, words = {}) {
  const form = new FormData();
  form.append('file', file);
  for (const [name, value] of Object.entries(words)) form.append(name, value);
  return call(path, form);
}

const verbs = {
  async export(d, form) {
    const data = new FormData(form), format = data.get('format');
    if (format.startsWith('masks')) await report(d, await call(`${d.path}/write_masks`, { layout: format.slice(6), overwrite: data.get('overwrite') === 'on' }), 'dataset.exported');
    else if (format.startsWith('.')) await report(d, await call(`${d.path}/export`, { suffix: format, overwrite: data.get('overwrite') === 'on' }), 'dataset.exported');
    else location.href = `${BASE}${d.path}/file?${new URLSearchParams({ format, prompt: data.get('prompt') ?? '' })}`;
  },
  zip: (d) => { location.href = `${BASE}${d.path}/zip`; },
  async import(d, form) {
    const read_as = form.read_as.value;
    await report(d, await call(`${d.path}/${read_as === 'masks' ? 'read_masks' : 'import'}`, { read_as }), read_as === 'masks' ? 'exchange.masksread' : 'exchange.imported');
  },
  async importfile(d, input) {
    const [file] = input.files, read_as = input.form.read_as.value;
    input.value = '';
    if (file) await report(d, await sendFile(`${d.path}/captions`, file, { read_as }), 'exchange.imported');
  },
  taglist: (d, select) => d.keep({ list: select.value }),
  async addlist(d, input) {
    const [file] = input.files;
    input.value = '';
    if (!file) return;
    const kept = await sendFile('datasets/tags', file);
    d.keep({ list: kept.name });
    toast(t('exchange.listed', { n: kept.tags.toLocaleString() }));
    await d.list();
  },
};

export const exchange = { name: 'exchange', html, verbs };
