// llama.cpp as a peer: answers jobs of `process.Process`, a line of JSON in, a line of JSON out.
// Its argument is a folder where `npm install node-llama-cpp --ignore-scripts` was run.
import fs from "fs";
import {createRequire} from "module";
import path from "path";
import readline from "readline";
import {pathToFileURL} from "url";

const folder = path.resolve(process.argv[2]);
const here = createRequire(path.join(folder, "x.js"));
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(here.resolve("node-llama-cpp")));
const about = path.join(folder, "node_modules", "node-llama-cpp", "package.json");
const {version} = JSON.parse(fs.readFileSync(about));
let model, context, sequence;

const jobs = {
  async hello() {
    return {version};
  },
  async load({file, threads, tokens}) {
    const logLevel = LlamaLogLevel.error;
    const llama = await getLlama({gpu: false, build: "never", logLevel, maxThreads: threads});
    await context?.dispose();
    await model?.dispose();
    model = await llama.loadModel({modelPath: file});
    context = await model.createContext({contextSize: tokens, sequences: 1, threads, batchSize: tokens});
    sequence = context.getSequence();
    return {};
  },
  async tokenize({texts}) {
    return {ids: texts.map((text) => Array.from(model.tokenize(text, true)))};
  },
  // Greedy continuations, and the seconds to the first token and for the others.
  async generate({prompts, count}) {
    const answers = [];
    for (const ids of prompts) {
      await sequence.clearHistory();
      const found = [], begun = performance.now();
      let first = 0;
      for await (const token of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
        first ||= performance.now() - begun;
        found.push(token);
        if (found.length >= count || model.isEogToken(token)) break;
      }
      answers.push({ids: found, first: first / 1000, rest: (performance.now() - begun - first) / 1000});
    }
    return {answers};
  },
  // Log-probabilities of each next token, and of the ten likeliest ones there.
  async score({ids}) {
    await sequence.clearHistory();
    const all = ids.map((token) => [token, {generateNext: {probabilities: true}}]);
    const steps = (await sequence.controlledEvaluate(all)).slice(0, -1);
    return {
      next: steps.map((step, i) => Math.log(step.next.probabilities.get(ids[i + 1]) ?? 0)),
      top: steps.map((step) => [...step.next.probabilities.entries()].slice(0, 10)
        .map(([token, probability]) => [token, Math.log(probability)])),
    };
  },
};

for await (const line of readline.createInterface({input: process.stdin})) {
  const {job, ...rest} = JSON.parse(line);
  let answer;
  try {
    answer = await jobs[job](rest);
  } catch (error) {
    answer = {error: String(error).split("\n")[0]};
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
