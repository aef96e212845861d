// What the trainer will see: samples made by its own code, with the settings of the Train tab and what is tried out over
// them; and the sizes that pictures are cut to, with what is cut.

import { ROOT, call, ended, esc, feed, lang, t } from '../easel.js';
import { formHtml, formValues } from '../form.js';
import { jobHtml } from '../job.js';
import { table } from './fields.js';
import { percent } from './words.js';

const tried = (d) => d.tried ?? {};
const asks = (d) => call(`${d.path}/train/sizes`, { changes: tried(d) });
const jobOf = (d, state) => [...feed.jobs.values()].filter((job) => job.kind === 'look' && job.settings?.dataset === d.name && (!state || job.state === state)).sort((a, b) => b.created - a.created)[0];
const address = (sample, file) => `${ROOT}view?${new URLSearchParams({ filename: file, subfolder: sample.subfolder, type: 'temp' })}`;

function sampleHtml(s, i) {
  if (s.error) return `<li data-key="${i}"><p class="bad">${esc(s.error[lang()])}</p></li>`;
  const v = s.variant, notes = [`${s.width} × ${s.height}`, s.flip && t('look.flip'), s.crop && t('draw.crop'), s.mask && t('draw.mask'),
    v && v.angle && `${v.angle.toFixed(1)}°`, v && v.zoom > 1 && `× ${v.zoom.toFixed(2)}`, v && v.saturation !== 1 && t('look.colour')].filter(Boolean);
  const tokens = Object.entries(s.tokens).map(([name, n]) => `<span class="${name !== 't5xxl' && n > 75 ? 'bad' : ''}">${esc({ l: 'CLIP-L', g: 'CLIP-G', h: 'CLIP-H', t5xxl: 'T5' }[name] ?? name)} ${n}</span>`).join(' · ');
  const mask = s.mask ? `<img class="mask" alt="${t('draw.mask')}" src="${address(s, s.mask)}">` : '';
  return `<li data-key="${i}"><div class="shot" style="aspect-ratio:${s.width}/${s.height}"><img alt="${esc(s.name)}" src="${address(s, s.file)}">${mask}</div>
    <small>${t('look.step', { n: s.step + 1 })} · ${esc(s.name)} · ${notes.map(esc).join(' · ')}</small><p>${s.caption ? esc(s.caption) : `<i>${t('look.dropped')}</i>`}</p><small>${t('count.tokens')}: ${tokens}</small></li>`;
}

function cutHtml(d, c) {
  const [l, t0, r, b] = c.box.map((value) => `${(100 * value).toFixed(2)}%`);
  return `<figure data-key="${c.id}"><div class="shot" style="aspect-ratio:${c.ratio}"><img loading="lazy" alt="${esc(c.name)}" src="${d.thumb(c.id, c.hash)}">
    <i style="left:${l};top:${t0};width:calc(${r} - ${l});height:calc(${b} - ${t0})"></i></div><figcaption>${esc(c.name)} → ${c.bucket.join(' × ')}<br>${t('look.lost', { share: percent(c.lost) })}</figcaption></figure>`;
}

function html(d, answer) {
  if (!answer) return '';
  const job = jobOf(d), samples = jobOf(d, 'done')?.result.samples ?? [];
  const head = [t('look.size'), t('look.pictures'), t('look.cut'), t('look.enlarged')];
  const rows = answer.buckets.map((b) => `<tr data-key="${b.width}x${b.height}"><td>${b.width} × ${b.height}</td><td>${b.n}</td><td>${percent(b.lost)}</td><td>${b.enlarged || '–'}</td></tr>`);
  return `<p class="sub">${t('look.hint')}</p><form data-act="look" class="ez-form-row">${formHtml(answer.fields, tried(d))}
    <button class="primary">${t('look.show')}</button>${samples.length ? `<button type="button" data-act="lookmore">${t('look.more')}</button>` : ''}<button type="button" data-act="totrain">${t('look.use')}</button></form>
    ${job && !ended(job) || job?.state === 'failed' ? jobHtml(job) : ''}<ul class="ez-looks">${samples.map(sampleHtml).join('')}</ul>
    <section class="ez-card" data-key="sizes"><h4>${t('look.sizes')}</h4>${table(head, rows)}</section>
    ${answer.cut.length ? `<section class="ez-card" data-key="cut"><h4>${t('look.most')}</h4><div class="ez-cuts">${answer.cut.map((c) => cutHtml(d, c)).join('')}</div></section>` : ''}`;
}

async function show(d, form, start) {
  d.tried = formValues(form, d.answers.look.fields);
  await call(`${d.path}/train/look`, { changes: d.tried, count: 12, start });
  await d.inquire();
}

const verbs = {
  look: (d, form) => show(d, form, 0),
  lookmore: (d, button) => show(d, button.form, jobOf(d, 'done').result.next),
  totrain(d, button) {
    const values = formValues(button.form, d.answers.look.fields);
    d.tell('send', { name: 'train', settings: { ...values, dataset: d.name } });
  },
};

export const look = { name: 'look', asks, html, verbs, watches: true };
