/** Errors that say the value, the rule, the place and the way out, as `edgekit.errors` does in Python. */

/** A fault the user can mend. */
export class EdgekitError extends Error {
  /**
   * @param {string} problem what was found, with the offending value
   * @param {{where?: string, rule?: string, wayOut?: string, cause?: unknown}} [about]
   */
  constructor(problem, { where = '', rule = '', wayOut = '', cause } = {}) {
    const parts = [['where', where], ['rule', rule], ['way out', wayOut]];
    const lines = [problem, ...parts.filter(([, text]) => text).map(([name, text]) => `${name}: ${text}`)];
    super(lines.join('\n  '), cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.problem = problem;
    this.where = where;
    this.rule = rule;
    this.wayOut = wayOut;
  }
}

/** A bundle is not whole, not ours, or not safe to load. */
export class BundleError extends EdgekitError {}

/** What was given to predict from is not what the model takes. */
export class DataError extends EdgekitError {}

/** ONNX Runtime is absent, or has no provider for the bundle. */
export class ProviderError extends EdgekitError {}
