// Loads a module of a CDKTF provider when it is first used. Node runs this file before jsii
// (`--require`, set in __init__.py). The index of `@cdktf/provider-aws` requires all of its 2,136
// modules, of which the stacks use some thirty: loading them all takes 3 s of processor time.
"use strict";

const { Module } = require("node:module");

const INDEX = /[\\/]@cdktf[\\/]provider-[a-z0-9-]+[\\/]lib[\\/]index\.js$/;
const requireNow = Module.prototype.require;

function loadOnUse(load) {
  let exported;
  const loaded = () => (exported ??= load());
  return new Proxy(
    {},
    {
      get: (_, name) => loaded()[name],
      has: (_, name) => name in loaded(),
      ownKeys: () => Reflect.ownKeys(loaded()),
      getOwnPropertyDescriptor: (_, name) => {
        const property = Reflect.getOwnPropertyDescriptor(loaded(), name);
        return property && { ...property, configurable: true };
      },
    },
  );
}

Module.prototype.require = function (id) {
  const isProviderModule = id.startsWith("./") && INDEX.test(this.filename ?? "");
  const load = () => requireNow.call(this, id);
  return isProviderModule ? loadOnUse(load) : load();
};
