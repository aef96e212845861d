// The health of a dataset: its figures, what is worth mending with the pictures it is about, near copies, broken files.

import { call, esc, lang, t } from '../easel.js';
import { copiesHtml, verbs as copyVerbs } from './copies.js';

const asks = async (d) => {
  const [health, copies] = await Promise.all([d.ask('health'), d.ask('copies')]);
  return { health, copies };
};

const figure = (value, words) => `<div><b>${value}</b><span>${words}</span></div>`;

function figuresHtml(h) {
  const [least, median, most] = h.shorter_side;
  return `<div class="ez-figures">${figure(h.pictures, t('check.pictures'))}${figure(h.tagged, t('check.tagged'))}${figure(h.captioned, t('check.captioned'))}${figure(h.tags, t('dataset.tags'))}
    ${figure(h.tags_per_picture, t('check.pertag'))}${figure(`${least} – ${most}`, t('check.side', { n: median }))}</div>`;
}

/** Bars of one colour: [{title, n, filter}] */
export function barsHtml(title, rows) {
  const top = Math.max(1, ...rows.map((row) => row.n));
  return `<section class="ez-card" data-key="${esc(title)}"><h4>${title}</h4><div class="ez-bars">${rows.map((row) => `<a href="#" role="button" data-key="${esc(row.title)}" data-filter="${esc(row.filter)}">
    <span>${esc(row.title)}</span><i style="width:${(100 * row.n) / top}%"></i><b>${row.n}</b></a>`).join('')}</div></section>`;
}

function findingsHtml(findings) {
  const row = (f) => `<li data-key="${esc(f.code)}">${esc(f[lang()])} ${f.filter ? `<a href="#" role="button" data-filter="${esc(f.filter)}">${t('dataset.showthem')}</a>` : ''}</li>`;
  return findings.length ? `<section class="ez-card" data-key="findings"><h4>${t('dataset.findings')} (${findings.length})</h4><ul class="ez-list">${findings.map(row).join('')}</ul></section>` : '';
}

function problemsHtml(problems, all) {
  const row = (p) => `<li data-key="${esc(p.path)}">${(p[lang()] ?? p.en).includes(p.path) ? '' : `<b>${esc(p.path)}</b> `}${esc(p[lang()] ?? p.en)}</li>`;
  return problems.length ? `<section class="ez-card" data-key="problems"><h4>${t('dataset.problems')} (${all})</h4><ul class="ez-list">${problems.map(row).join('')}</ul></section>` : '';
}

function html(d, answer) {
  const problems = problemsHtml([...d.refused, ...d.info.problems], d.refused.length + (d.info.refused ?? 0));
  if (!answer) return problems;
  const { health, copies } = answer;
  const measure = `<div class="ez-bar"><button ${health.unmeasured ? 'class="primary"' : ''} data-act="measure">${t('check.measure')}</button><span class="n">${health.unmeasured ? t('check.unmeasured', { n: health.unmeasured }) : t('check.measured')}</span></div>`;
  const charts = Object.entries(health.charts ?? {}).map(([name, rows]) => barsHtml(t(`check.chart.${name}`), rows)).join('');
  return `${problems}${figuresHtml(health)}${measure}${findingsHtml(health.findings)}<div class="ez-charts">${charts}</div>${copiesHtml(d, copies)}`;
}

const verbs = {
  measure: (d) => call('jobs', { kind: 'measure', title: d.name, settings: { dataset: d.name } }),
  ...copyVerbs,
};

export const check = { name: 'check', asks, html, verbs };
