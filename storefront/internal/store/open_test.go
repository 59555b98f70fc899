package store

import (
	"context"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkOpen opens a store with what a hundred thousand grants leave in it, whose process was killed: a link of an owner's chain and a record for the reader,
// both with the signed document, and a place, each grant in a commit of its own. On a machine that does other work, the processor time is what to look at.
func BenchmarkOpen(b *testing.B) {
	const grants, document = 100_000, 8000
	dir := b.TempDir()
	db := openTest(b, filepath.Join(dir, "running"))
	for i := range grants {
		id := func(kind byte, n int) []byte {
			key := make([]byte, 1+32+8)
			key[0] = kind
			binary.BigEndian.PutUint64(key[1:], uint64(n)*0x9e3779b97f4a7c15)
			binary.BigEndian.PutUint64(key[33:], uint64(i))
			return key
		}
		value := make([]byte, document)
		if err := db.Commit(context.Background(),
			Change{Key: id('k', i/10), Version: 1, Value: value},
			Change{Key: id('g', i%100), Version: 1, Value: value},
			Change{Key: id('G', i/10), Version: 1, Value: value[:40]},
		); err != nil {
			b.Fatal(err)
		}
	}
	shell := func(script string) {
		if out, err := exec.Command("sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	shell(`cp -r --sparse=always "$1/running" "$1/killed"`)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	var sum time.Duration
	for b.Loop() {
		b.StopTimer()
		shell(`rm -rf "$1/again" && cp -r --sparse=always "$1/killed" "$1/again"`)
		b.StartTimer()
		before := processorTime(b)
		db = openTest(b, filepath.Join(dir, "again"))
		sum += processorTime(b) - before
		b.StopTimer()
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(sum.Seconds()/float64(b.N), "s-cpu/op")
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
