package tiles

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/vault/keylog"
)

// erasedName is a file that says how far bodies were erased here, so that a start does not look at all of them again. If it is gone, or says less, they are; whoever
// can change it can as well keep a copy of the bodies.
const erasedName = "erased"

// erase brings the bodies files up to what is erased in the log. Each is replaced in one step; what a crash cuts short is done by the next call.
func (p *Publisher) erase(ctx context.Context) error {
	if p.cfg.Erased == nil {
		return nil
	}
	to := min(int64(p.cfg.Erased()), p.tree.size)
	if p.erased < 0 {
		text, _ := os.ReadFile(p.path(erasedName))
		p.erased, _ = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		p.erased = max(p.erased, 0)
	}
	if to <= p.erased {
		return nil
	}
	begin := p.erased - p.erased%Width
	var bodies [][]byte
	err := p.cfg.Log.Replay(ctx, begin, func(at keylog.Position, r keylog.Record) error {
		if at.Index%Width == 0 && at.Index >= to || at.Index >= p.tree.size {
			return errEnough
		}
		bodies = append(bodies, bytes.Clone(r.Body))
		if len(bodies) < Width && at.Index+1 < p.tree.size {
			return nil
		}
		defer func() { bodies = bodies[:0] }()
		return p.rewrite(at.Index/Width, bodies)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if err := p.sync(); err != nil {
		return err
	}
	if err := p.durable(erasedName, []byte(strconv.FormatInt(to, 10)+"\n")); err != nil {
		return err
	}
	p.erased = to
	return nil
}

// eraseAccounts does the same for accounts that were closed, each once in the life of the process.
func (p *Publisher) eraseAccounts(ctx context.Context) error {
	if p.cfg.ErasedAccounts == nil {
		return nil
	}
	for _, entries := range p.cfg.ErasedAccounts(p.accounts) {
		for i, index := range entries {
			n := int64(index) / Width
			if i > 0 && n == int64(entries[i-1])/Width || int64(index) >= p.tree.size {
				continue
			}
			var bodies [][]byte
			err := p.cfg.Log.Replay(ctx, n*Width, func(at keylog.Position, r keylog.Record) error {
				if at.Index >= min((n+1)*Width, p.tree.size) {
					return errEnough
				}
				bodies = append(bodies, bytes.Clone(r.Body))
				return nil
			})
			if err != nil && !errors.Is(err, errEnough) {
				return err
			}
			if err := p.rewrite(n, bodies); err != nil {
				return err
			}
		}
		if err := p.sync(); err != nil {
			return err
		}
		p.accounts++
	}
	return nil
}

// rewrite replaces the bodies files of a bundle, the full one and partial ones, as far as they are there and say something else.
func (p *Publisher) rewrite(n int64, bodies [][]byte) error {
	widths := []int{Width}
	partial, err := os.ReadDir(p.path(BodiesPath(n, Width)) + ".p")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("publishing: %w", err)
	}
	for _, e := range partial {
		if w, err := strconv.Atoi(e.Name()); err == nil && w >= 1 && w < Width {
			widths = append(widths, w)
		} else if err := os.Remove(p.path(BodiesPath(n, Width)) + ".p/" + e.Name()); err != nil { // what a crash left
			return fmt.Errorf("publishing: %w", err)
		}
	}
	for _, w := range slices.Backward(widths) {
		name := BodiesPath(n, w)
		have, err := os.ReadFile(p.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		if w > len(bodies) { // beyond what is published: it is written again before it is
			if err := os.Remove(p.path(name)); err != nil {
				return fmt.Errorf("publishing: %w", err)
			}
			continue
		}
		if want := bodiesBytes(bodies[:w]); !bytes.Equal(have, want) {
			if err := p.write(name, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func bodiesBytes(bodies [][]byte) (out []byte) {
	for _, b := range bodies {
		out = appendBody(out, b)
	}
	return out
}

// appendBody is a body as a bodies file has it.
func appendBody(out, body []byte) []byte {
	if body == nil {
		return binary.BigEndian.AppendUint32(out, Erased)
	}
	return append(binary.BigEndian.AppendUint32(out, uint32(len(body))), body...)
}
