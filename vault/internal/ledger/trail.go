package ledger

import (
	"encoding/binary"
	"slices"
	"sort"
)

// trail is the list of the entries that concern one identity: indexes of the log, ascending. It only grows, and for a business that reads a lot it has
// most entries of a log, for ever; so each takes a byte or two and not eight. It lies in pages, so that a flush writes its end and not all of it, and so that
// finding an index reads one page.
type trail struct {
	pages [][]byte // trailPage indexes each, but for the last: the first as it is, then the distance of each from the one before, as uvarints
	n     int
	last  uint64
}

const trailPage = 1024

// add notes an index above all before.
func (t *trail) add(index uint64) {
	at := t.n / trailPage
	if at == len(t.pages) {
		t.pages = append(t.pages, binary.AppendUvarint(nil, index))
	} else {
		t.pages[at] = binary.AppendUvarint(t.pages[at], index-t.last)
	}
	if t.n, t.last = t.n+1, index; t.n%trailPage == 0 {
		t.pages[at] = slices.Clip(slices.Clone(t.pages[at])) // it is full, and stays
	}
}

// page is the bytes of a page, which may be kept: what is added later lies behind them.
func (t *trail) page(number uint64) []byte {
	if t == nil || number >= uint64(len(t.pages)) {
		return nil
	}
	return t.pages[number]
}

// readPage is the indexes of a page, or false if it is none.
func readPage(page []byte) ([]uint64, bool) {
	out := make([]uint64, 0, min(len(page), trailPage))
	for last := uint64(0); len(page) > 0; {
		v, n := binary.Uvarint(page)
		if n <= 0 || len(out) == trailPage || len(out) > 0 && (v == 0 || last+v < last) || n > 1 && page[n-1] == 0 {
			return nil, false
		}
		last, page = last+v, page[n:]
		out = append(out, last)
	}
	return out, len(out) > 0
}

// find is the page that has an index if any does, or nothing.
func (t *trail) find(index uint64) []byte {
	if t == nil {
		return nil
	}
	n := sort.Search(len(t.pages), func(i int) bool {
		first, _ := binary.Uvarint(t.pages[i])
		return first > index
	})
	if n == 0 {
		return nil
	}
	return t.pages[n-1]
}

// has reports whether an index is in the list.
func (t *trail) has(index uint64) bool {
	page := t.find(index)
	for at := uint64(0); len(page) > 0; {
		v, n := binary.Uvarint(page)
		if at, page = at+v, page[n:]; at >= index {
			return at == index
		}
	}
	return false
}

// below is the newest indexes below one, newest first, at most limit.
func (t *trail) below(before uint64, limit int) []uint64 {
	out := []uint64{}
	for before > 0 && len(out) < limit {
		indexes, _ := readPage(t.find(before - 1))
		at, _ := slices.BinarySearch(indexes, before)
		if at == 0 {
			break
		}
		for at > 0 && len(out) < limit {
			at--
			out = append(out, indexes[at])
		}
		before = out[len(out)-1]
	}
	return out
}
