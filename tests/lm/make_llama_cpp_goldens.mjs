// Writes goldens/llama_cpp_ids.json: token ids by llama.cpp for texts of ours.
//   npm install node-llama-cpp --ignore-scripts      (in any folder; run this file from there)
//   node .../tests/lm/make_llama_cpp_goldens.mjs LLMS TARGET
// LLMS: the folder that ../shared/models/get_llms.sh fills. TARGET: the file to write.
import fs from "fs";
import path from "path";
import {createRequire} from "module";
import {pathToFileURL} from "url";

const here = createRequire(path.join(process.cwd(), "x.js"));
const entry = pathToFileURL(here.resolve("node-llama-cpp"));
const {getLlama, LlamaLogLevel} = await import(entry);
const [, , folder, target] = process.argv;
const texts = [
  "A quiet film about two sisters.",
  "It's 1995, they'll say; WE'RE late. DON'T!",
  "12345 3.14 1,000,000 2024-11-30 007",
  "  two  spaces\n\nand lines\n \t tabs\t\t end  ",
  "\r\nwindows\r\n", " ", "\n", "\n\n\n", "   x", "x   ", "\t",
  "naïve café, Ünïcödé, straße, Łódź, İstanbul",
  "e\u0301 is not é; ﬁne ½ ² № …",
  "Матрица 1999 — фильм", "千と千尋の神隠し", "기생충 2019", "القاهرة", "हिन्दी सिनेमा",
  "🙂🚀👩‍👩‍👧‍👦🇩🇪", "zero\u200bwidth\u00a0space\u3000wide",
  "def f(x):\n    return x ** 2  # power\n",
  "{\"genre\": [\"drama\", \"comedy\"], \"year\": 1995}",
  "https://example.com/a?b=c&d=%20e#f", "someone@example.org",
  "CamelCaseAndSNAKE_CASE_and-kebab", "=====-----~~~~~", "aaaaaaaaaaaaaaaaaaaaaaaa",
  "$9.99 + €5 = £?", "“quotes” ‘and’ dashes – — …", "(a)[b]{c}<d>", "#1 fan's @home",
  "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
  "<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n",
  "<|endoftext|>", "a<|im_end|>b", " <|im_end|> ", "</s>x<s>", "<unk><pad><bos><eos>",
  "<h1>Title</h1><table><td>1</td></table>", "<unused0><unused99>", "<|fim_prefix|>x<|file_sep|>",
];
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
const found = {texts};
for (const file of fs.readdirSync(folder).filter((name) => name.endsWith(".gguf")).sort()) {
  const model = await llama.loadModel({modelPath: path.join(folder, file), vocabOnly: true});
  found[file.slice(0, -".gguf".length)] = texts.map((text) => Array.from(model.tokenize(text, true)));
}
fs.writeFileSync(target, JSON.stringify(found) + "\n");
process.exit(0);
