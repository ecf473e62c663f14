// What the page is told by the server, and what its own parts hand to each other. The server's side of it is
// rootdata.bundle.manifest.Manifest, serve.models.repository.Card and serve.protocols; tests/serve/test_page_types.py
// holds them together.

interface Branch {
  name: string;
  dtype: string;
  kind: "flat" | "fixed" | "jagged";
  width: number;
  counts: string | null;
  unit: string | null;
}

interface TensorSpec {
  name: string;
  dtype: string;
  shape: (number | string)[];
  features: string[];
  collection: string | null;
}

interface OutputSpec {
  name: string;
  dtype: string;
  shape: (number | string)[];
  columns: string[];
  kind: string;
  units: string[];
}

interface FeatureRange {
  low: number;
  high: number;
  mean: number;
  std: number;
  missing: number;
}

interface Parity {
  num_events: number;
  max_difference: number;
  columns: Record<string, Value[]>;
  scores: number[][];
}

interface SampleSelection {
  cut: string | null;
  label: number | null;
  weight: string | number | null;
}

interface EventSelection {
  cut: string | null;
  samples: Record<string, SampleSelection>;
  label: string | null;
  weight: string | number | null;
  split: Record<string, unknown>;
  branches: Branch[];
  trees: string[];
}

interface RocCurve {
  signal_efficiency: number[];
  background_efficiency: number[];
}

interface FoldRule {
  count: number;
  by: string | null;
  rule: "expression" | "average";
  feature: string;
  scaling: Record<string, unknown>[];
}

interface Manifest {
  sha256: string;
  size: number;
  inputs: TensorSpec[];
  outputs: OutputSpec[];
  branches: Branch[];
  features: { jagged?: Record<string, { length?: number }>; derived?: Record<string, unknown> };
  selection: EventSelection | null;
  computed: unknown[] | null;
  scaling: Record<string, unknown> | null;
  rules: Record<string, string> | null;
  ranges: Record<string, FeatureRange>;
  metrics: Record<string, number>;
  roc: Record<string, RocCurve>;
  scores: Record<string, Record<string, number[]>>;
  training: Record<string, unknown>;
  software: Record<string, string>;
  parity: Parity | null;
  tags: string[];
  author: string;
  description: string;
  created: string;
  batching: "events" | "none";
  folds?: FoldRule | null;
  schema: number;
}

/** A model in a list. What follows `tags` is there for models of which a version can be used. */
interface Card {
  name: string;
  latest: number | null;
  versions: number[];
  aliases: Record<string, number>;
  tags: string[];
  broken: Record<string, string>;
  unloaded: number[];
  problem?: string;
  author?: string;
  description?: string;
  created?: string;
  columns?: string[];
  metrics?: Record<string, number>;
  features?: string[];
}

interface Settings {
  graph: boolean;
  keys: boolean;
}

interface Explained {
  outside: Record<string, { value: number; low: number; high: number }>;
  truncated: Record<string, { objects: number; kept: number }>;
  missing: string[];
  cuts?: string[];
}

interface Scores {
  model: string;
  version: number;
  scores: Record<string, number[]>;
}

interface OutputTensor {
  name: string;
  shape: number[];
  data: (number | string | boolean)[];
}

interface InferenceAnswer {
  model_name: string;
  model_version: string;
  outputs: OutputTensor[];
}

/** A value of a branch: lists for jagged and fixed ones; strings for numbers that JSON has no word for. */
type Value = number | boolean | string | null | Value[];

/** Nested lists of a tensor. */
type Nested = number | boolean | string | Nested[];

/** One version of a model, as the forms take it. */
interface Model {
  name: string;
  version: number;
  latest: number | null;
  manifest: Manifest;
  settings: Settings;
}

/** A field of a form: what is wrong with its value is said in its note. */
interface Field {
  name: string;
  input: HTMLInputElement | HTMLTextAreaElement;
  note: HTMLElement;
  element?: HTMLElement;
}

interface BranchField extends Field {
  branch: Branch;
  element: HTMLElement;
}

interface TensorField extends Field {
  spec: TensorSpec;
  shape: number[];
  element: HTMLElement;
}

/** What lies in an element; what is null or false is left out. */
type Content = Node | string | number | boolean | null | undefined | Content[];

/** Attributes of an element; functions ("on...") are listeners. */
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: Event) => unknown)>;

interface Window {
  exports: object; // netron's files look for it
}
