package main

import (
	"slices"
	"time"
)

// shrink looks for a shorter script that fails too, by leaving out lines: halves, quarters, and so on down to single ones. What fails only
// sometimes is tried more than once. It ends when nothing can be left out, or at the deadline, or after most attempts.
func shrink(s *Script, fails func(*Script) bool, deadline time.Time, most int) *Script {
	for size := max(1, len(s.Lines)/2); ; size /= 2 {
		for again := true; again; {
			again = false
			for first := 0; first < len(s.Lines); {
				if time.Now().After(deadline) || most <= 0 {
					return s
				}
				shorter := *s
				shorter.Lines = slices.Delete(slices.Clone(s.Lines), first, min(first+size, len(s.Lines)))
				if len(shorter.Lines) == 0 {
					first += size
					continue
				}
				shorter.Lines[0].With = false
				failed := false
				for range 2 {
					if most--; !failed && most >= 0 {
						failed = fails(&shorter)
					}
				}
				if failed {
					s, again = &shorter, size == 1
				} else {
					first += size
				}
			}
		}
		if size <= 1 {
			return s
		}
	}
}
