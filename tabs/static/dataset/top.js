// The line above the grid: which dataset, making one, taking pictures in, undo. And the verbs of its buttons.

import { BASE, attempt, call, esc, t, toast } from '../easel.js';
import { editWords } from './words.js';

export function topHtml(d) {
  const { names, info } = d;
  const undo = (act, title) => `<button data-act="${act}" ${title ? `title="${esc(editWords(title))}"` : 'disabled'}>${t(`dataset.${act}`)}</button>`;
  const choice = names.length ? `<select name="dataset" aria-label="${t('tab.dataset')}">${names.map((n) => `<option ${n === d.name ? 'selected' : ''}>${esc(n)}</option>`).join('')}</select>` : '';
  return `${choice}${d.demo && !names.includes(d.demo) ? `<button class="primary" data-act="demo">${t('dataset.demo')}</button>` : ''}
    <details class="ez-pop"><summary>${t('dataset.new')}</summary><form data-act="create"><label>${t('dataset.name')}<input name="name" type="text" required></label>
    <label>${t('dataset.folder')}<input name="folder" type="text"></label><p class="sub">${t('dataset.folderhint')}</p><button class="primary">${t('dataset.create')}</button></form></details>
    ${d.name ? `<label class="ez-file" title="${t('dataset.uploadhint')}">${t('dataset.upload')}<input type="file" data-change="upload" accept="image/*,.zip,.txt,.caption,.json,.jsonl,.csv" multiple></label>
    <button data-act="scan">${t('dataset.scan')}</button>${undo('undo', info.undo)}${undo('redo', info.redo)}` : ''}`;
}

const MASK = /-masklabel\.png$/i;
const CAPTIONS = /\.(jsonl?|csv)$/i;

/** One file at a time: pictures and sidecars are taken in at once, a zip is sent whole and unpacked by a job. */
async function send(d, file) {
  if (/\.zip$/i.test(file.name)) {
    await sendArchive(d, file);
    return;
  }
  const form = new FormData();
  form.append('file', file);
  await call(`${d.path}/${CAPTIONS.test(file.name) ? 'captions' : 'upload'}`, form);
}

/** A zip as it is, with the share that has arrived; it may have gigabytes. */
function sendArchive(d, file) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open('POST', `${BASE}${d.path}/archive?name=${encodeURIComponent(file.name)}`);
    request.upload.onprogress = ({ loaded, total }) => toast(t('dataset.sending', { name: file.name, share: Math.round((100 * loaded) / total) }));
    request.onload = () => { if (request.status < 300) done(); else failed(new Error(refusal(request))); };
    request.onerror = () => failed(new Error(t('worker.offline')));
    request.send(file);
  });
}

function refusal(request) {
  try { const { error } = JSON.parse(request.responseText); return error[document.documentElement.lang.startsWith('zh') ? 'zh' : 'en']; } catch { return `HTTP ${request.status}`; }
}

export const verbs = {
  undo: (d) => d.step('undo'),
  redo: (d) => d.step('redo'),
  async demo(d) { const made = await call('datasets/demo', {}); await d.list(made.name); },
  async create(d, form) {
    const made = await call('datasets', { name: form.name.value, folder: form.folder.value });
    form.reset();
    form.closest('details').open = false;
    await d.list(made.name);
  },
  async scan(d) {
    const found = await d.change('scan');
    if (found?.job) toast(t('dataset.scanning'));
    else if (found) toast(t('dataset.scanned', { added: found.added, gone: found.gone }) + (found.masks ? ` ${t('dataset.maskfiles', { n: found.masks })}` : ''));
  },
  async upload(d, { files: chosen }) {
    // a mask is known by the picture of its name, which must be there before
    const files = [...chosen].sort((a, b) => MASK.test(a.name) - MASK.test(b.name));
    if (!d.name || !files.length) return;
    d.refused = [];
    for (const [i, file] of files.entries()) {
      toast(t('dataset.uploading', { i: i + 1, n: files.length }));
      await send(d, file).catch((error) => d.refused.push({ path: file.name, en: error.message, zh: error.message }));
    }
    toast(t(d.refused.length ? 'dataset.someuploaded' : 'dataset.uploaded', { n: files.length - d.refused.length, bad: d.refused.length }), d.refused.length > 0);
    if (d.refused.length) d.keep({ tool: 'check' });
    await attempt(d.load());
  },
};
