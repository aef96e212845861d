// Groups of near copies side by side: which is better by size, sharpness and tags, and what is decided of each.

import { bytes, esc, lightbox, t } from '../easel.js';

const FACTS = {
  pixels: (p) => `${p.width} × ${p.height}`,
  bytes: (p) => `${p.format} ${bytes(p.bytes)}`,
  sharpness: (p) => t('copies.sharpness', { n: p.sharpness }),
  tags: (p) => t('copies.tags', { n: p.tags }),
};

export function copiesHtml(d, { total, groups }) {
  if (!total) return '';
  const group = (members) => {
    const ids = members.map((p) => p.id);
    const button = (act, p, key) => `<button data-act="${act}" data-id="${p.id}" data-ids="${ids}" aria-label="${t(key)}: ${esc(p.name)}">${t(key)}</button>`;
    const picture = (p) => `<figure data-key="${p.id}"><button class="pic" data-act="lookcopy" data-id="${p.id}" aria-label="${t('copies.look')}: ${esc(p.name)}"><img loading="lazy" src="${d.thumb(p.id, p.hash)}" alt="${esc(p.name)}"></button>
      <figcaption><b>${esc(p.name)}</b><ul>${Object.entries(FACTS).map(([fact, words]) => `<li class="${p.best.includes(fact) ? 'best' : ''}">${p.best.includes(fact) ? `<i title="${t('copies.best')}">▲</i> ` : ''}${esc(words(p))}</li>`).join('')}</ul></figcaption>
      <div class="ez-bar">${button('bettercopy', p, 'copies.better')}${button('dropcopy', p, 'copies.drop')}</div></figure>`;
    return `<li data-key="${ids[0]}"><div class="row">${members.map(picture).join('')}</div><div class="ez-bar"><button data-act="alternates" data-ids="${ids}" title="${t('copies.alternatehint')}">${t('copies.alternate')}</button></div></li>`;
  };
  const all = groups.length > 1 ? `<div class="ez-bar"><button data-act="keepfirst">${t('check.keepall')}</button></div>` : '';
  return `<section class="ez-card" data-key="copies"><h4>${t('check.copies', { n: total })}</h4><p class="sub">${t('copies.hint')}</p><ul class="ez-groups">${groups.map(group).join('')}</ul>${all}</section>`;
}

const numbers = (button) => button.dataset.ids.split(',').map(Number);
const groupsOf = (d) => d.answers.check?.copies.groups ?? [];

export const verbs = {
  bettercopy: (d, button) => d.change('better', { keep: [Number(button.dataset.id)], others: numbers(button) }),
  dropcopy: (d, button) => d.change('remove', { pictures: [Number(button.dataset.id)] }),
  alternates: (d, button) => d.change('alternates', { pictures: numbers(button) }),
  keepfirst: (d) => d.change('better', { keep: groupsOf(d).map(([first]) => first.id), others: groupsOf(d).flat().map((p) => p.id) }),
  /** All of a group at full size, one after the other with the arrow keys: what differs then jumps to the eye. */
  lookcopy(d, button) {
    const id = Number(button.dataset.id), group = groupsOf(d).find((members) => members.some((p) => p.id === id)) ?? [];
    lightbox(group.map((p) => ({ url: d.whole(p.id, p.hash), caption: `${p.name} · ${Object.values(FACTS).map((words) => words(p)).join(' · ')}` })), group.findIndex((p) => p.id === id));
  },
};
