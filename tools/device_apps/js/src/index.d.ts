/** Runs edgekit bundles in browsers and in Node. */

/** A fault the user can mend: what was found, where, what would have been right, what to do now. */
export class EdgekitError extends Error {
  problem: string;
  where: string;
  rule: string;
  wayOut: string;
}
/** A bundle is not whole, not ours, or not safe to load. */
export class BundleError extends EdgekitError {}
/** What was given to predict from is not what the model takes. */
export class DataError extends EdgekitError {}
/** ONNX Runtime is absent, or has no provider for the bundle. */
export class ProviderError extends EdgekitError {}

/** numpy's names; float16 comes as its bits in a Uint16Array. */
export type Dtype =
  | 'bool' | 'int8' | 'int16' | 'int32' | 'int64' | 'uint8' | 'uint16' | 'uint32' | 'uint64' | 'float16' | 'float32' | 'float64';
export type Values =
  | Int8Array | Int16Array | Int32Array | BigInt64Array | Uint8Array | Uint16Array | Uint32Array | BigUint64Array | Float32Array | Float64Array;
export interface Tensor { dtype: Dtype; shape: number[]; data: Values }
/** A tensor of ours or of ONNX Runtime's; what is left out is as the bundle says. */
export type TensorLike = Tensor | { type?: string; dims: readonly number[]; data: Values };
/** One input or output; a size that is a text is open. */
export interface TensorSpec { name: string; dtype: Dtype; shape: (number | string)[] }
export interface Io { inputs: TensorSpec[]; outputs: TensorSpec[] }

/** Bytes of an image, row by row: 1 (grey), 3 (RGB) or 4 (RGBA, whose A is dropped) for each pixel. ImageData is one. */
export interface Image { width: number; height: number; data: Uint8Array | Uint8ClampedArray }

/** One file of the model and what it is for; `tolerance` is how far each output may lie from the golden one. */
export interface Variant {
  name: string; provider: string; precision: string; target: string; tolerance: Record<string, number>;
  toleranceFrom: 'measured' | 'assumed'; file: string; toString(): string;
}
/** A variant, the reason it was taken, what is wrong with it here (empty: nothing), and what ONNX Runtime is told. */
export interface Choice { variant: Variant; reason: string; compromise: string; config: Record<string, string> }

/** What `edgekit/bundle.json` says; keys of preprocessing and postprocessing are as they stand there. */
export interface Manifest {
  name: string; created: string; io: Io; labels: string[];
  preprocessing: ({ kind: 'image' | 'log_mel' | 'waveform' | 'wordpiece' } & Record<string, any>) | null;
  postprocessing: ({ kind: 'classification' | 'detection' | 'text' } & Record<string, any>) | null;
  metrics: Record<string, any>; provenance: Record<string, any>; variants: Variant[]; goldenSamples: number;
  files: Map<string, { sha256: string; size: number }>;
}

export interface Ranked { label: string; index: number; confidence: number }
/** The likeliest class, as many others as an app shows, and the probabilities of all. */
export interface Prediction extends Ranked { top: Ranked[]; probabilities: number[] }
/** One object; `box` is left, top, right, bottom in pixels of the image as it was given. */
export interface Detection extends Ranked { box: [number, number, number, number] }
export type Outputs = Record<string, Tensor>;
export type Answer = Prediction | Prediction[] | Detection[] | string | Outputs;

/** One golden sample: inputs, the reference's outputs, and what the inputs came from, as `predict` takes it. */
export interface Golden { inputs: Outputs; outputs: Outputs; raw: Tensor | Float32Array | string | null }
/** How far each output was from the golden one at most, and how far it may be. */
export interface Check { samples: number; differences: Record<string, number>; tolerances: Record<string, number> }

export interface LoadOptions {
  /** `cpu`, the only one that JavaScript is offered. */
  provider?: 'cpu' | null;
  /** The bundle's identity, where it is known from a source that is trusted: another one is refused. */
  digest?: string | null;
  /** The PEM text of a public key (P-256, P-384, P-521): only a bundle that is signed with this key is loaded. */
  publicKey?: string | null;
  /** What is in the bundle's .sig; by default it is looked for beside the bundle, where that has an address or a path. */
  signature?: Uint8Array | string | null;
  /** The module onnxruntime-web or onnxruntime-node; by default what is installed, the native one first. */
  runtime?: unknown;
  /** Threads of the session; more than one needs an isolated page in browsers. */
  threads?: number;
  /** Told what is not as it should be, but no error; console.warn by default. */
  warn?: (text: string) => void;
}

/** The address, the bytes or the file of a NAME.edgekit.zip; a folder's path (in Node); the files of a folder. */
export type Source = string | URL | Uint8Array | ArrayBuffer | Blob | FileList | File[];

/** Load a bundle: verify it, choose the variant that suits this machine, open it in ONNX Runtime. */
export function load(source: Source, options?: LoadOptions): Promise<Model>;

/** A model that is ready to run. */
export class Model {
  private constructor(parts: never);
  readonly manifest: Manifest;
  /** SHA-256 of `edgekit/bundle.json`, which holds the digests of all files: the bundle's identity. */
  readonly digest: string;
  readonly choice: Choice;
  /** What became of variants that were preferred to the one that runs. */
  readonly notes: string[];
  readonly name: string;
  readonly labels: string[];
  readonly variant: Variant;
  /** Which variant runs, why, and what is wrong with that, in lines. */
  explain(): string;
  /** Predict from raw input: an image, samples of a recording, a text; or a prepared tensor; or tensors by name. */
  predict(raw: Image | Float32Array | Int16Array | string | TensorLike | Record<string, TensorLike>): Promise<Answer>;
  /** Outputs by name, for inputs by name. */
  run(feeds: Record<string, TensorLike>): Promise<Outputs>;
  /** Replay the golden vectors: preprocessing and outputs must come out as when the bundle was made. */
  check(): Promise<Check>;
  golden(): Golden[];
  /** Free what the session holds. */
  close(): Promise<void>;
}

/** The array in a .npy file of version 1.0. */
export function readNpy(bytes: Uint8Array, where: string): Tensor;
