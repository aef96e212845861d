// The node editor in a frame, spoken to by messages (studio/comfy/bridge.js answers in there).

export class Editor {
  waiting = new Map();
  ready = false;
  last = 0;

  /** Puts the frame into `box`. `ready` and `changed` are called when the editor says so. */
  constructor(box, url, { ready, changed }) {
    this.frame = document.createElement('iframe');
    Object.assign(this.frame, { src: url, title: 'ComfyUI', allow: 'clipboard-read; clipboard-write; fullscreen' });
    this.hear = ({ origin, source, data }) => {
      if (origin !== location.origin || source !== this.frame.contentWindow || typeof data?.easel !== 'string') return;
      if (data.easel === 'answer') this.answered(data);
      if (data.easel === 'told' && data.what === 'ready') { this.ready = true; ready(); }
      if (data.easel === 'told' && data.what === 'changed' && this.ready) changed();
    };
    addEventListener('message', this.hear);
    box.append(this.frame);
  }

  close() { removeEventListener('message', this.hear); this.frame.remove(); }

  /** What the editor answers; an Error with its words when it could not. */
  ask(what, more = {}) {
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.answered({ id, error: `the editor does not answer (${what})` }), 30000);
      this.waiting.set(id, { resolve, reject, timer });
      this.frame.contentWindow.postMessage({ easel: 'ask', id, what, ...more }, location.origin);
    });
  }

  answered({ id, error, ...told }) {
    const asked = this.waiting.get(id);
    if (!asked) return;
    this.waiting.delete(id);
    clearTimeout(asked.timer);
    if (error) asked.reject(new Error(error));
    else asked.resolve(told);
  }
}
