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
//
// What it found, of the failures that the record counts. FuzzAlike (policies/names): a name of click letters only could be vouched for and looked like no other name, not even
// itself; such names are refused. FuzzDecode (policies/envelope) and FuzzFrame (vault/keylog): faults of the tests; one sealed what it may not, the other did not know that an
// erased record has zeros in place of its body. FuzzDecodeFields (policies) and FuzzLuna (vault/audit/reconcile): none; their processes were stopped for a while by hand, which Go takes
// for a hang, and the inputs pass.
package main
