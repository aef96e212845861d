// What stands beside the grid: one chosen picture with its tags, its caption and the versions of it; or several. HTML only,
// and the verbs of its buttons.

import { esc, t, toast } from '../easel.js';
import { draw } from './painter.js';
import { moment } from './words.js';

const WARN = { clip: 75 }; // tokens from which on a text encoder cuts, or a trainer needs a second piece

const addHtml = () => `<form data-act="add" class="ez-bar"><input name="tag" type="text" autocomplete="off" data-complete="tag" aria-label="${t('dataset.addtag')}" placeholder="${t('dataset.addtag')}">
  <button class="primary">${t('dataset.add')}</button></form>`;

export function manyHtml(ids) {
  return `<div data-key="many"><p><b>${t('dataset.selected', { n: ids.length })}</b></p>${addHtml()}
    <form data-act="drop" class="ez-bar"><input name="tag" type="text" autocomplete="off" data-complete="tag" aria-label="${t('dataset.droptag')}" placeholder="${t('dataset.droptag')}">
    <button>${t('dataset.drop')}</button></form>
    <div class="ez-bar"><button data-act="remove">${t('dataset.takeout')}</button><button data-act="unmark">${t('regions.clear')}</button></div></div>`;
}

export function pictureHtml(d, about) {
  const judge = (a, state, key, sign) => `<button data-tag="${esc(a.name)}" data-state="${a.decision === state ? 0 : state}" aria-pressed="${a.decision === state}"
    aria-label="${t(key)}: ${esc(a.shown)}" title="${t(key)}">${sign}</button>`;
  const said = (a) => `<small title="${esc(a.opinions.map((o) => `${o.tool} ${o.score.toFixed(3)}`).join('\n'))}">${esc(a.opinions.length ? a.opinions.map((o) => `${o.short} ${o.score.toFixed(2)}`).join(', ') : t('dataset.you'))}</small>`;
  const next = about.annotations.find((a) => !a.decision && a.present && a.category !== 'rating');
  const tag = (a) => `<li class="${a.present ? 'on' : 'off'}${a.decision ? ' mine' : ''}${a === next ? ' next' : ''}" data-key="${esc(a.name)}"><a class="tag" href="#" role="button" data-filter="${esc(a.filter)}">${esc(a.shown)}</a>
    ${said(a)}${judge(a, 1, 'dataset.accept', '✓')}${judge(a, -1, 'dataset.reject', '✕')}</li>`;
  const drawn = `${about.crop ? ` · ${t('draw.crop')} ${about.crop[2] - about.crop[0]} × ${about.crop[3] - about.crop[1]}` : ''}${about.mask ? ` · ${t('draw.mask')}` : ''}`;
  return `<div data-key="about-${about.id}"><div class="view" style="aspect-ratio:${about.width}/${about.height};width:min(100%, calc(36vh * ${(about.width / about.height).toFixed(4)}))"><img src="${d.whole(about.id, about.hash)}" alt="${esc(about.name)}">${overlay(d, about)}</div>
    <p class="sub">${esc(about.name)} · ${about.width} × ${about.height}${drawn}</p>
    <p class="ez-caption">${esc(about.caption) || `<i>${t('dataset.nocaption')}</i>`}</p>${tokensHtml(about.tokens)}
    ${regionsHtml(about)}<ul class="ez-tags">${about.annotations.map(tag).join('')}</ul>${addHtml()}
    <form data-act="write"><label>${t('dataset.text')}<textarea name="text" rows="3" data-change="write">${esc(about.text)}</textarea></label>
    <div class="ez-bar"><button>${t('dataset.savetext')}</button><button type="button" data-act="mask">${t('draw.mask')}</button><button type="button" data-act="crop">${t('draw.crop')}</button>
    <button type="button" data-act="remove">${t('dataset.takeout')}</button></div></form>${versionsHtml(about)}</div>`;
}

function overlay(d, about) {
  const box = about.crop && about.crop.map((value, i) => (100 * value) / (i % 2 ? about.height : about.width));
  const crop = box ? `<rect class="crop" x="${box[0]}" y="${box[1]}" width="${box[2] - box[0]}" height="${box[3] - box[1]}"/>` : '';
  const regions = about.regions.map((r, i) => `<polygon data-region="${i}" points="${r.outline.map((v) => (100 * v).toFixed(2)).join(' ')}"><title>${esc(r.label)}</title></polygon>`).join('');
  const mask = about.mask ? `<img class="mask" alt="${t('draw.mask')}" src="${d.maskUrl(about.id, about.mask)}">` : '';
  return `${mask}${crop || regions ? `<svg viewBox="0 0 100 100" preserveAspectRatio="none">${regions}${crop}</svg>` : ''}`;
}

/** What models found or said of places, by name; pointing at one shows where it is. */
function regionsHtml({ regions }) {
  const short = (tool) => esc(tool.replace(/^[a-z]+:/, ''));
  const tools = [...new Map(regions.map((r) => [r.source, r.tool]))];
  const row = (r, i) => `<li data-key="${i}" data-region="${i}" tabindex="0"><b>${esc(r.label || t('regions.unnamed'))}</b> <small>${short(r.tool)}</small>
    <button data-act="unmark" data-at="${i}" aria-label="${t('regions.drop')}: ${esc(r.label || t('regions.unnamed'))}" title="${t('regions.drop')}">✕</button></li>`;
  const all = ([source, tool]) => `<button data-act="unmark" data-key="s${source}" data-source="${source}">${t('regions.dropall', { tool: short(tool) })}</button>`;
  return regions.length ? `<details class="ez-more" data-key="regions" open><summary>${t('regions.title', { n: regions.length })}</summary><ul class="ez-regions">${regions.map(row).join('')}</ul><div class="ez-bar">${tools.map(all).join('')}</div></details>` : '';
}

export function pointAt(d, target) {
  const at = target.closest('[data-region]')?.dataset.region;
  for (const one of d.querySelectorAll('aside [data-region]')) one.classList.toggle('at', one.dataset.region === at);
}

function tokensHtml(tokens) {
  const one = ([name, n]) => `<span class="${n > (WARN[name] ?? 1e9) ? 'bad' : ''}">${t('count.' + name)} ${n}${WARN[name] ? ` / ${WARN[name]}` : ''}</span>`;
  return `<p class="sub ez-tokens">${t('count.tokens')}: ${Object.entries(tokens).map(one).join(' · ')}</p>`;
}

function versionsHtml({ versions }) {
  if (versions.length < 2 && !(versions.length && !versions[0].current)) return '';
  const row = (v) => `<li data-key="v${v.id}"><small>${esc(v.tool === 'user' ? t('dataset.you') : v.tool)} · ${moment(v.time)}</small><p>${esc(v.text)}</p>
    ${v.current ? `<small>${t('versions.current')}</small>` : `<button data-act="restore" data-version="${v.id}">${t('versions.restore')}</button>`}</li>`;
  return `<details class="ez-more" data-key="versions"><summary>${t('versions.title', { n: versions.length })}</summary><ul class="ez-versions">${versions.map(row).join('')}</ul></details>`;
}

export const verbs = {
  add(d, form) { const tag = form.tag.value.trim(); if (tag) { form.reset(); return d.decide(tag, 1); } },
  drop(d, form) { const tag = form.tag.value.trim(); if (tag) { form.reset(); return d.decide(tag, -1); } },
  write(d, element) {
    const text = (element.form ?? element).text.value;
    if (d.picture && text !== d.picture.text) return d.change('caption', { picture: d.picture.id, text });
  },
  /** One region, all of a source, or all of the chosen pictures. */
  unmark(d, { dataset: { at, source } }) {
    const { label, shape, points, source: from } = d.picture?.regions[at] ?? {};
    return d.change('remove_regions', { pictures: d.ids, source: at === undefined ? source : from, region: at === undefined ? null : { label, shape, points } });
  },
  async remove(d) {
    const { ids } = d;
    if (await d.change('remove', { pictures: ids })) toast(t('dataset.takenout', { n: ids.length }));
  },
  restore: (d, button) => d.change('restore', { picture: d.picture.id, version: Number(button.dataset.version) }),
  mask: (d) => draw(d, 'mask'),
  crop: (d) => draw(d, 'crop'),
};
