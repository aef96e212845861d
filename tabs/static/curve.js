// <easel-curve run="NAME">: the loss of a run, raw and smoothed, drawn on a canvas. <easel-samples run="NAME">: its
// pictures, one row a prompt, one column a step. Without a run attribute both follow the newest training job.

import { BASE, Live, call, esc, feed, lightbox, t } from './easel.js';

const style = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

class OfRun extends Live {
  start() {
    this.on(feed, 'change', () => this.refresh());
    this.sizes = new ResizeObserver(() => this.data && this.draw());
    this.sizes.observe(this);
    this.timer = setInterval(() => { if (this.offsetParent) this.refresh(true); }, 3000);
    this.refresh();
  }

  close() { clearInterval(this.timer); this.sizes.disconnect(); }

  get run() { return this.getAttribute('run') || feed.latest(['train'])?.settings?.name || ''; }

  async refresh(again = false) {
    const run = this.run, job = feed.latest(['train']);
    const mark = `${run} ${job?.id} ${job?.state}`;
    if (!run || (mark === this.mark && !again) || (again && job?.state !== 'running' && mark === this.mark)) return;
    this.mark = mark;
    try { this.data = await call(`runs/${encodeURIComponent(run)}/${this.what}`); this.draw(); } catch { /* the run has no folder yet */ }
  }
}

/** Exponential mean, started without bias. */
export function smooth(values, weight = 0.95) {
  let mean = 0, norm = 0;
  return values.map((value) => { mean = mean * weight + value * (1 - weight); norm = norm * weight + 1 - weight; return mean / norm; });
}

class Curve extends OfRun {
  what = 'metrics';

  draw() {
    const rows = this.data?.rows ?? [];
    if (!rows.length) { this.paint(`<p class="empty">${t('train.nocurve')}</p>`); return; }
    this.paint(`<canvas class="ez-curve" role="img" aria-label="${t('train.curve')}"></canvas>`);
    const canvas = this.querySelector('canvas'), scale = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * scale; canvas.height = height * scale;
    if (!width) return;
    const g = canvas.getContext('2d');
    g.scale(scale, scale);
    const x0 = 52, y0 = height - 24, raw = rows.map((row) => row.loss), soft = smooth(raw);
    const top = Math.max(...raw) * 1.05 || 1, last = rows.at(-1).step, first = rows[0].step;
    const x = (step) => x0 + ((step - first) / Math.max(1, last - first)) * (width - x0 - 12);
    const y = (loss) => y0 - (loss / top) * (y0 - 12);
    g.font = '12px system-ui, sans-serif'; g.fillStyle = style('--body-text-color-subdued'); g.strokeStyle = style('--border-color-primary');
    for (let i = 0; i <= 4; i++) {
      const value = (top * i) / 4;
      g.beginPath(); g.moveTo(x0, y(value)); g.lineTo(width - 12, y(value)); g.stroke();
      g.fillText(value.toPrecision(2), 6, y(value) + 4);
    }
    g.fillText(String(first), x0, height - 6); g.fillText(String(last), width - 12 - g.measureText(String(last)).width, height - 6);
    const line = (values, colour, thickness) => {
      g.strokeStyle = colour; g.lineWidth = thickness; g.beginPath();
      rows.forEach((row, i) => g.lineTo(x(row.step), y(values[i])));
      g.stroke();
    };
    g.textAlign = 'center'; g.fillText(t('train.curve'), (x0 + width) / 2, height - 6, Math.max(40, width - x0 - 100));
    g.globalAlpha = 0.35; line(raw, style('--primary-400'), 1);
    g.globalAlpha = 1; line(soft, style('--primary-600'), 2);
  }
}
customElements.define('easel-curve', Curve);

class Samples extends OfRun {
  what = 'samples';

  start() {
    super.start();
    this.on(this, 'click', (event) => {
      const image = event.target.closest('button')?.firstElementChild;
      if (!image) return;
      const all = [...this.querySelectorAll('img')].map((i) => ({ url: i.dataset.full, caption: i.alt }));
      lightbox(all, [...this.querySelectorAll('img')].indexOf(image));
    });
  }

  draw() {
    const { steps = [], prompts = [], pictures = {} } = this.data ?? {};
    if (!steps.length) { this.paint(`<p class="empty">${t('train.nosamples')}</p>`); return; }
    const url = (name) => `${BASE}runs/${encodeURIComponent(this.run)}/samples/${encodeURIComponent(name)}`;
    const cell = (step, i) => {
      const name = pictures[`${step}/${i}`];
      return name ? `<td><button class="pic"><img loading="lazy" data-full="${url(name)}" src="${url(name)}" alt="${esc(`${step}: ${prompts[i]}`)}"></button></td>` : '<td></td>';
    };
    this.paint(`<div class="ez-scroll"><table class="ez-samples"><tr><th></th>${steps.map((s) => `<th>${s}</th>`).join('')}</tr>
      ${prompts.map((p, i) => `<tr><th>${esc(p)}</th>${steps.map((s) => cell(s, i)).join('')}</tr>`).join('')}</table></div>`);
  }
}
customElements.define('easel-samples', Samples);
