// <easel-system>: device memory by ledger, the machine, the log. <easel-models>: model files and what is on the device.

import { Live, bytes, call, esc, lang, t } from './easel.js';

export class Polled extends Live {
  start() {
    const load = () => { if (this.offsetParent && !document.hidden) this.load(); };
    this.timer = setInterval(load, this.every);
    this.seen = new IntersectionObserver(load);  // at once when its tab is opened
    this.seen.observe(this);
  }

  close() { clearInterval(this.timer); this.seen.disconnect(); }
}

const meter = (label, used, total, words) => `<div class="ez-meter"><span>${esc(label)}</span><b>${esc(words)}</b>
  <i><u style="width:${total ? Math.min(100, (100 * used) / total) : 0}%"></u></i></div>`;

class System extends Polled {
  every = 3000;

  async load() {
    const answer = await Promise.all([call('system'), call('log')]).catch(() => undefined);
    if (!answer) return;  // the line above the tab says that the studio does not answer
    [this.data, { log: this.log }] = answer;
    this.draw();
  }

  draw() {
    if (!this.data) { this.paint('<p class="empty">…</p>'); return; }
    const { device, memory, disk, cpu, worker } = this.data;
    const before = this.querySelector('pre'), atEnd = !before || before.scrollTop + before.clientHeight >= before.scrollHeight - 8;
    const ledger = device.ledger ? Object.entries(device.ledger)
      .map(([name, n]) => meter(t('ledger.' + name), n, device.budget || 1, bytes(n))).join('') : `<p class="empty">${esc(device.error?.[lang()] ?? '')}</p>`;
    this.paint(`<h3>${t('system.device')}: ${esc(device.device ?? t('worker.' + worker.state))}</h3>
      ${device.ledger ? meter(t('system.free'), device.total - device.free, device.total, t('system.of', { used: bytes(device.total - device.free), total: bytes(device.total) })) : ''}
      <h3>${t('system.ledger')}</h3>${ledger}
      <h3>${t('system.machine')}</h3>
      ${meter('CPU', cpu.load, cpu.count, t('system.load', { load: cpu.load.toFixed(1), n: cpu.count }))}
      ${meter('RAM', memory.used, memory.total, t('system.of', { used: bytes(memory.used), total: bytes(memory.total) }))}
      ${meter(t('system.disk'), disk.total - disk.free, disk.total, t('system.left', { free: bytes(disk.free) }))}
      <p class="sub">${esc(disk.path)}</p>
      <h3>${t('system.log')}</h3><pre class="ez-log" tabindex="0">${esc(this.log || t('system.nolog'))}</pre>`);
    const log = this.querySelector('pre');
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}
customElements.define('easel-system', System);

class Models extends Polled {
  every = 5000;

  async load() {
    const answer = await Promise.all([call('models'), call('system')]).catch(() => undefined);
    if (!answer) return;
    [{ models: this.files }, this.system] = answer;
    this.draw();
  }

  draw() {
    if (!this.files) { this.paint('<p class="empty">…</p>'); return; }
    const loaded = this.system.device.models ?? [];
    const row = (cells) => `<tr>${cells.map((c) => `<td>${c}</td>`).join('')}</tr>`;
    const file = (f) => row([`<b>${esc(f.name)}</b><br><small>${esc(f.title ?? '')}</small>`, esc(f.folder),
      f.error ? `<span class="bad">${esc(f.error[lang()])}</span>` : esc(f.family ?? t('models.unknown')), bytes(f.bytes)]);
    const table = (heads, rows, none) => rows.length ? `<div class="ez-scroll"><table class="ez-table"><tr>${heads.map((h) => `<th>${t(h)}</th>`).join('')}</tr>
      ${rows.join('')}</table></div>` : `<p class="empty">${t(none)}</p>`;
    this.paint(`<h3>${t('models.device')}</h3>${table(['models.model', 'models.role', 'models.state', 'models.size'],
      loaded.filter((m) => m.state !== 'file').map((m) => row([esc(m.title), t('role.' + m.role), t('models.' + m.state) + (m.leases ? ` · ${t('models.used')}` : ''), bytes(m.nbytes)])), 'models.nothing')}
      <h3>${t('models.disk')}</h3><p class="sub">${t('models.where', { folder: `<code>${esc(this.system.disk.path)}/models</code>` })}</p>${table(['models.file', 'models.folder', 'models.family', 'models.size'], this.files.map(file), 'models.nofiles')}`);
  }
}
customElements.define('easel-models', Models);
