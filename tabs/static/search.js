// <easel-search target="#train-form">: finds options of a long form by their words, and shows or hides the advanced ones.

import { Live, t } from './easel.js';

class Search extends Live {
  start() {
    this.innerHTML = '<div class="ez-bar"><input type="search"><button type="button"></button></div>';
    this.on(this.querySelector('input'), 'input', () => this.find());
    this.on(this.querySelector('button'), 'click', () => { this.form.classList.toggle('all'); this.draw(); });
  }

  get form() { return document.querySelector(this.getAttribute('target')); }

  find() {
    const words = this.querySelector('input').value.trim().toLowerCase();
    this.form.classList.toggle('searching', words !== '');
    for (const field of this.form.querySelectorAll('.ez-field')) {
      field.classList.toggle('hit', words !== '' && `${field.id} ${field.textContent}`.toLowerCase().includes(words));
    }
  }

  draw() {
    this.querySelector('input').placeholder = t('search.options');
    this.querySelector('input').setAttribute('aria-label', t('search.options'));
    this.querySelector('button').textContent = t(this.form?.classList.contains('all') ? 'search.fewer' : 'search.all');
  }
}
customElements.define('easel-search', Search);
