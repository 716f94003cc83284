// What is asked of the node: by HTTP, and by websockets that come back by themselves.

const KEY = 'peregrine.key';
const ANSWER_MS = 10_000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];

/** Where a route of this node is, wherever the page was put. */
const route = (path) => new URL(path, document.baseURI);

/** The key of this tab; it goes when the tab does. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

/** An answer that is no success, with the sentence that the node gave. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  /** Would another key help? */
  get wantsKey() {
    return this.status === 401 || this.status === 403;
  }
}

/** Asks a route and gives what it answers, parsed. A `body` makes it a POST. */
export const ask = async (path, body) => {
  const headers = {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  let answer;
  let text;
  try {
    answer = await fetch(route(path), {
      method: body === undefined ? 'GET' : 'POST',
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS),
      cache: 'no-store',
    });
    text = await answer.text();
  } catch {
    throw new Refusal(0, 'the node does not answer');
  }
  let told;
  try {
    told = JSON.parse(text);
  } catch {
    throw new Refusal(answer.ok ? 0 : answer.status, 'the answer cannot be read');
  }
  if (!answer.ok) throw new Refusal(answer.status, String(told.detail ?? told.error ?? answer.statusText));
  return told;
};

// A browser lets a page set no header of a websocket but this one, so the key is in it. The node reads it, and never
// answers with it.
const protocols = () => {
  const text = key.get();
  if (!text) return ['peregrine.v1.json'];
  const coded = btoa(String.fromCharCode(...new TextEncoder().encode(text)));
  return ['peregrine.v1.json', `peregrine.key.${coded.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')}`];
};

/**
 * A websocket that is opened again whenever it ends, ever later, and at once when the reader or the network comes back.
 * `silence_ms`: without a message for so long it is taken for dead.
 */
export class Socket {
  #path;
  #on;
  #silence;
  #socket = null;
  #tries = 0;
  #timer = 0;
  #watch = 0;
  #wished = null;

  /** `on`: `open(socket)`, `message(object)`, `state(name, detail)`; states are waiting, live, lost. */
  constructor(path, silenceMs, on) {
    this.#path = path;
    this.#on = on;
    this.#silence = silenceMs;
    const soon = () => {
      if (!document.hidden && this.#timer) this.#open();
    };
    addEventListener('online', soon);
    document.addEventListener('visibilitychange', soon);
  }

  /** Begins, or begins anew: with another path, or another key. */
  start(path = this.#path) {
    this.#path = path;
    this.#tries = 0;
    this.#open();
  }

  /** Sends a message, if there is anybody to take it. */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** The node has said when it can be asked again. */
  wish(millis) {
    this.#wished = Math.min(30_000, Math.max(0, millis));
  }

  #open() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#drop();
    const address = route(this.#path);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(address, protocols());
    this.#socket = socket;
    let wasOpen = false;
    this.#hear();
    socket.onopen = () => {
      wasOpen = true;
      this.#on.open?.(this);
    };
    socket.onmessage = (event) => {
      this.#hear();
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        return; // not of this protocol
      }
      this.#tries = 0;
      this.#on.state('live');
      this.#on.message(message);
    };
    socket.onclose = (event) => {
      if (this.#socket === socket) this.#ended(wasOpen, event.reason);
    };
  }

  #hear() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      this.#drop();
      this.#ended(true, 'nothing was heard');
    }, this.#silence);
  }

  #drop() {
    clearTimeout(this.#watch);
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #ended(wasOpen, why) {
    clearTimeout(this.#watch);
    this.#socket = null;
    const usual = BACKOFF_MS[Math.min(this.#tries, BACKOFF_MS.length - 1)];
    // Readers of a node that was restarted do not all come back in the same moment.
    const pause = (this.#wished ?? usual) * (0.75 + Math.random() / 2);
    this.#wished = null;
    this.#tries += 1;
    this.#on.state('lost', { wasOpen, why, again: performance.now() + pause });
    this.#timer = setTimeout(() => this.#open(), pause);
  }
}
