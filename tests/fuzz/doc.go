// Command fuzz runs every fuzz target of the module for a given time, seeds them with the test vectors, and keeps what they find.
//
// The list of targets is tests/architecture/fuzz.txt, which a test holds in step with the sources. Each target is built with coverage
// instrumentation and run by itself, on one core, with a corpus in the user's cache (~/.cache/sallyport/fuzz): inputs that reach new code
// stay there and are where the next run begins. A failing input is written by the testing package to the target's testdata folder; it
// is a regression test from then on.
//
// # What is in the tree
//
//	PACKAGE/testdata/fuzz/Target/vector-*   the test vectors of tests/vectors, cut to what the target takes (-seeds renews them)
//	PACKAGE/testdata/fuzz/Target/corpus-*   a small choice of what fuzzing found: the smallest inputs that reach something new
//	tests/fuzz/record.txt                   how long each target ran in all, how many inputs it tried, and what failed
//
// `go test ./...` runs all of these inputs as ordinary tests, so a parser that forgets an old lesson fails in CI.
package main
