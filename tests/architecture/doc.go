// Package architecture holds the walls of the project: who may import whom, what may need cgo, which code may not read a clock,
// open a file or touch variable-time arithmetic, and what the tree looks like. It is policy, written as a table in graph.go,
// and the test compares it with the tree.
//
// It reads the source files themselves with go/parser. A test that asked `go list` would pass from the test cache on a bad
// graph, because the cache does not know which files the answer came from; these files it does know, for the test opens them.
//
// To change a wall, change the table in the same commit as the code, and say in the commit why. A new fuzz target is entered
// into fuzz.txt by `go test ./tests/architecture -update`.
package architecture
