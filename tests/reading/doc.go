// Package reading holds a second reading of the formats, in JavaScript, and the tests that set it beside the first.
//
// src/ was written from policies/SPECIFICATION.md and the vectors alone, by somebody who had not read packages policies, envelope and
// pre. What the two readings do not agree on is a bug in one of them, or a sentence missing in the specification. The tests here run it as a
// process (src/serve.js) and compare: on all vectors, on documents and items that either makes afresh for the other, on
// thousands of damaged ones, and as an owner and a reader against a running Sallyport.
//
// It is a test tool: its arithmetic on secret scalars is variable time.
package reading
