package tiles

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/keylog"
)

// ErrWitnesses means that fewer witnesses cosigned than are needed. What was published stays as it is.
var ErrWitnesses = errors.New("not enough witnesses cosigned the checkpoint")

// What is wrong with a witness, or with its answer.
var (
	ErrAway    = errors.New("the witness does not answer")
	ErrAnswer  = errors.New("the witness answers what is no cosignature")
	ErrRefused = errors.New("the witness does not cosign")
	// ErrAhead: it says that it cosigned a tree that is larger than this log. The log was rolled back or forked, or the witness does not tell the truth.
	ErrAhead = errors.New("the witness cosigned more entries than this log has")
)

// Witness is asked to cosign each checkpoint before it is published (C2SP tlog-witness).
type Witness struct {
	Key    evidence.Cosigner
	URL    string // the prefix of its add-checkpoint
	Client *http.Client
}

// WitnessStatus is what became of the last question to a witness.
type WitnessStatus struct {
	Name string
	Size int64     // of the tree that it cosigned last, as far as this process knows
	At   time.Time // when, by its clock; zero: not since this process began
	Err  error     // why the last try failed
}

// Bounds of asking.
const (
	askTimeout = 10 * time.Second       // for one witness, proofs and all
	grace      = 500 * time.Millisecond // that the others get when enough have answered
	maxAge     = 30 * time.Second       // of a checkpoint when it is cosigned; recheck rests on it: an entry is not that much older than a cosignature without it
	maxPause   = time.Minute            // between two questions to a witness that fails
	maxAnswer  = 64 << 10               // bytes
	maxLines   = 16                     // of an answer that are looked at
	maxProofs  = 3                      // questions of one try, each from where the last answer said
	renewal    = time.Hour              // after which an idle log is cosigned again
	keptNotes  = time.Hour              // between two checkpoints that are kept, see WitnessedPath
	firstPause = time.Second
)

// asked is a witness and what is known of it. One goroutine asks it at a time; mu guards what Status reads.
type asked struct {
	Witness
	mu       sync.Mutex
	status   WitnessStatus
	failures int
	due      time.Time
}

func (a *asked) report() WitnessStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// took notes how a try ended.
func (a *asked) took(size int64, at time.Time, err error, now time.Time) (changed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed = (err == nil) != (a.status.Err == nil)
	a.status.Err = err
	if err == nil {
		a.status.Size, a.status.At, a.failures, a.due = size, at, 0, time.Time{}
		return changed
	}
	a.due = now.Add(min(firstPause<<min(a.failures, 6), maxPause))
	a.failures++
	return changed
}

// knows notes the size of a tree that a witness said it cosigned.
func (a *asked) knows(size int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Size = size
}

// cosign asks the witnesses that are due, all at once, and returns the lines of those that cosigned: of as many as are needed, and of those that are about as
// fast. taken is when the checkpoint was the log's newest.
func (p *Publisher) cosign(ctx context.Context, cp keylog.Checkpoint, text string, taken time.Time) (lines string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	type answer struct {
		line string
		err  error
	}
	now := time.Now()
	var due []*asked
	tooFew := fmt.Errorf("%w: %d of %d are needed", ErrWitnesses, p.cfg.Need, len(p.witnesses))
	for _, w := range p.witnesses {
		w.mu.Lock()
		if now.Before(w.due) {
			tooFew = fmt.Errorf("%w; %w", tooFew, w.status.Err)
		} else {
			due = append(due, w)
		}
		w.mu.Unlock()
	}
	answers := make(chan answer, len(due))
	for _, w := range due {
		running.Go(func() {
			line, at, err := p.ask(ctx, w, cp, text)
			if age := p.cfg.Now().Round(0).Sub(taken.Round(0)); err == nil && (age > maxAge || age < 0) {
				err = fmt.Errorf("%w: the checkpoint was %v old then", ErrAway, age)
			}
			if w.took(cp.Size, at, err, time.Now()) {
				if err != nil {
					p.cfg.Logger.Warn("a witness does not cosign", "witness", w.Key.Name, "error", err.Error())
				} else {
					p.cfg.Logger.Info("a witness cosigns again", "witness", w.Key.Name)
				}
			}
			answers <- answer{line, err}
		})
	}
	var enough <-chan time.Time
	got := 0
	for range due {
		if got >= p.cfg.Need && enough == nil {
			enough = time.After(grace)
		}
		select {
		case a := <-answers:
			if a.err != nil {
				tooFew = fmt.Errorf("%w; %w", tooFew, a.err)
				continue
			}
			lines += a.line
			got++
		case <-enough:
			return lines, nil
		}
	}
	if got < p.cfg.Need {
		return "", tooFew
	}
	return lines, nil
}

// ask asks one witness. It begins where the witness was last, and goes where the witness says that it is.
func (p *Publisher) ask(ctx context.Context, w *asked, cp keylog.Checkpoint, text string) (line string, at time.Time, err error) {
	old := w.report().Size
	if old > cp.Size { // it said so before: let it say it again
		old = 0
	}
	for range maxProofs {
		var proof tlog.TreeProof
		if old > 0 && old < cp.Size {
			if proof, err = p.cfg.Log.ProveConsistency(old, cp.Size); err != nil {
				return "", at, fmt.Errorf("%s: proving %d entries to it: %w", w.Key.Name, old, err)
			}
		}
		status, answer, err := w.post(ctx, old, proof, text)
		switch {
		case err != nil:
			return "", at, fmt.Errorf("%s: %w: %w", w.Key.Name, ErrAway, err)
		case status == http.StatusOK:
			if line, at, err = w.line(p.cfg.Document.LogKey, cp, text, answer); err != nil {
				return "", at, fmt.Errorf("%s: %w", w.Key.Name, err)
			}
			return line, at, nil
		case status != http.StatusConflict:
			return "", at, fmt.Errorf("%s: %w: HTTP status %d", w.Key.Name, ErrRefused, status)
		}
		size, err := strconv.ParseInt(strings.TrimSuffix(string(answer), "\n"), 10, 64)
		switch {
		case err != nil || size < 0 || fmt.Sprintf("%d\n", size) != string(answer) || size == old:
			return "", at, fmt.Errorf("%s: %w: a conflict that is none", w.Key.Name, ErrAnswer)
		case size > cp.Size:
			w.knows(size)
			return "", at, fmt.Errorf("%s: %w: %d, and the log has %d", w.Key.Name, ErrAhead, size, cp.Size)
		}
		w.knows(size)
		old = size
	}
	return "", at, fmt.Errorf("%s: %w: it says another size each time", w.Key.Name, ErrAnswer)
}

// post sends one request and reads an answer of bounded length.
func (w *asked) post(ctx context.Context, old int64, proof tlog.TreeProof, text string) (int, []byte, error) {
	body := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		body = append(base64.StdEncoding.AppendEncode(body, h[:]), '\n')
	}
	body = append(append(body, '\n'), text...)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(w.URL, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	response, err := w.Client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if len(answer) > maxAnswer {
		return 0, nil, fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	}
	return response.StatusCode, answer, err
}

// line finds the witness's own line in an answer. Lines of others are not looked at: they could be anybody's.
func (w *asked) line(key policies.LogKey, cp keylog.Checkpoint, text string, answer []byte) (string, time.Time, error) {
	n := 0
	for line := range strings.Lines(string(answer)) {
		if n++; n > maxLines {
			break
		}
		if !strings.HasPrefix(line, "\u2014 "+w.Key.Name+" ") || !strings.HasSuffix(line, "\n") {
			continue
		}
		c, by, err := evidence.OpenCosigned(text+line, key, evidence.Witnesses{Need: 1, Of: []evidence.Cosigner{w.Key}})
		if err == nil && c.Size == uint64(cp.Size) && c.Root == policies.Hash(cp.Root) {
			return line, by[0].At, nil
		}
	}
	return "", time.Time{}, fmt.Errorf("%w: no line of it that verifies", ErrAnswer)
}
