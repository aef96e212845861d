// Words that several parts of the Dataset tab share.

import { lang, t } from '../easel.js';

/** The title of an edit: some have words, others are names and signs. */
export function editWords(title) {
  const taken = title.match(/^− (\d+) ▢$/);
  return taken ? t('edit.taken', { n: taken[1] }) : t(`edit.${title}`).replace(/^edit\./, '');
}

/** A moment, short. */
export const moment = (time) => new Date(1000 * time).toLocaleString(lang() === 'zh' ? 'zh-CN' : 'en-GB', { dateStyle: 'short', timeStyle: 'short' });

/** 0.8312 -> "83 %". */
export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
