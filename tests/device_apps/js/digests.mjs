import { slowly } from './src/sha256.js';

console.log(JSON.stringify(JSON.parse(process.argv[2]).map((text) => Buffer.from(slowly(new TextEncoder().encode(text))).toString('hex'))));
