// @ts-check
// Starts netron for one model of this server, in place of its own index.js: without its questions to other hosts
// (where the visitor is, whether it is the newest version, statistics), and with the visitor's key.

window.exports = {};

async function start() {
  // netron's modules have no types.
  const [{ Host }, { View }, { keyHeaders, pathOf }] = await Promise.all(
    ["./browser.js", "./view.js", "../api.js"].map((module) => import(module)));
  const words = new URLSearchParams(location.search);

  class ModelHost extends Host {
    /** @param {unknown} view */
    async view(view) {
      this._view = view;
    }

    async start() {
      const name = words.get("name");
      await this._openModel(`../../${pathOf(name, words.get("version"))}/model.onnx`, `${name}.onnx`);
    }

    /**
     * @param {string} url
     * @param {Record<string, string>} headers
     * @param {unknown[]} rest
     */
    async _request(url, headers, ...rest) {
      return super._request(url, { ...headers, ...keyHeaders() }, ...rest);
    }

    /** @param {string} name */
    environment(name) {
      return name === "packaged" ? false : super.environment(name); // no offer to report errors elsewhere
    }
  }
  await new View(new ModelHost()).start();
}

addEventListener("load", () => start().catch((error) => {
  document.body.className = "";
  document.body.textContent = `netron can't show this graph: ${error.message}`;
}));
