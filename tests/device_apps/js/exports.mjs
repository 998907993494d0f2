import * as edgekit from 'edgekit';

console.log(JSON.stringify(Object.keys(edgekit).sort()));
