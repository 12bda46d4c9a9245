"use strict";
// Where the page's data come from: the server of `view`, or what was written beside a static page.
GS.source = (() => {
  async function asked(path, content) {
    const options = content === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content), keepalive: true };
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Error("the server gives no answer; start grounded-seg view again, and load the page again");
    }
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(found.error?.message ?? `the server answered ${answer.status}`);
    return found;
  }

  class Server {
    #start = "";
    isStatic = false;

    async run() {
      const run = await asked("api/run");
      this.#start = run.start;
      return run;
    }

    selection = async (filter) => (await asked(`api/selection?${new URLSearchParams(filter)}`)).images;
    items = async (images) => (await asked(`api/items?images=${images.join(",")}`)).items;
    thumbnail = (image) => `api/images/${image}/thumbnail?of=${this.#start}`;
    picture = (image) => `api/images/${image}/picture?of=${this.#start}`;
    decide = (image, what, keys, name) => asked(`api/images/${image}/decision`, { what, keys, class: name });
    ask = (image, prompt) => asked(`api/images/${image}/question`, { prompt });
    threshold = (name, score) => asked("api/threshold", { class: name, score });
    undo = () => asked("api/undo", {});
  }

  /** Items that stand in a script, in their order; nothing can be decided. */
  class Written {
    isStatic = true;

    constructor(written) {
      this.written = written;
    }

    run = async () => this.written.run;
    selection = async () => this.written.items.map((_, index) => index);
    items = async (images) => images.map((image) => this.written.items[image]);
    thumbnail = (image) => this.written.items[image].picture;
    picture = (image) => this.written.items[image].picture;
  }

  return window.GROUNDED_SEG_WRITTEN ? new Written(window.GROUNDED_SEG_WRITTEN) : new Server();
})();
