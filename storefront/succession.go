package storefront

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/freeze"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// maxGenerations is how many generations of one identity are read.
const maxGenerations = 1024

// line is an identity with the successions that are registered here. They were verified when they came.
func (s *Storefront) line(ctx context.Context, id policies.IdentityID) (*succession.Line, []api.Succession, error) {
	first, err := s.identity(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	line := succession.Begin(id, first)
	records, err := s.store.Scan(ctx, key(kindSuccession, id[:]), nil, maxGenerations)
	if err != nil {
		return nil, nil, err
	}
	list := make([]api.Succession, len(records))
	for i, r := range records {
		if err := decodeRecord(r, &list[i]); err != nil {
			return nil, nil, err
		}
		env, d, err := stored[succession.Document]("succession", list[i].Document)
		if err != nil {
			return nil, nil, err
		}
		if d.Generation != line.Newest().Generation+1 {
			break // one before it is missing: its owner sends it again
		}
		line.Append(d, env.Hash)
	}
	return &line, list[:len(line.Holders)-1], nil
}

// postSuccession passes an identity's next document, or the notice of one, on to the vault. No login is asked for: what it is signed with says
// more, and a login may be a thief's. What comes after is refused under the old keys here too, at once.
func (s *Storefront) postSuccession(c *call) error {
	var id policies.IdentityID
	if err := id.UnmarshalText([]byte(c.Param("id"))); err != nil {
		return err
	}
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	if env.Type == "closure" {
		return s.closureAgain(c, id, env)
	}
	line, known, err := s.line(c.ctx, id)
	if err != nil {
		return err
	}
	var d *succession.Document
	var link policies.Link
	switch env.Type {
	case "succession":
		if d, err = line.Take(env); err != nil {
			return err
		}
		link = d.Link
	case "succession-notice":
		n, err := policies.Decode[succession.Notice](env)
		if err != nil {
			return err
		}
		if n.Identity != id {
			return problem.New(policies.CodeMalformed, "the notice is of another identity than the path")
		}
		if err := line.Verify(env, n.Seq); err != nil {
			return err
		}
		link = n.Link
	case "suspension":
		n, err := policies.Decode[succession.Suspension](env)
		if err != nil {
			return err
		}
		if policies.IdentityID(n.Reader) != id {
			return problem.New(policies.CodeMalformed, "the suspension is of another identity than the path")
		}
		if err := line.Verify(env, n.Seq); err != nil {
			return err
		}
		link = n.Link
	case "thaw":
		n, err := policies.Decode[freeze.Thaw](env)
		if err != nil {
			return err
		}
		if policies.IdentityID(n.Owner) != id {
			return problem.New(policies.CodeMalformed, "the thaw is of another identity than the path")
		}
		if err := line.Verify(env, n.Seq); err != nil {
			return err
		}
		link = n.Link
	default:
		return problem.New(policies.CodeMalformed, "this is no succession, no notice of one, no suspension and no thaw")
	}
	k := own(policies.OwnerID(id))
	unlock, err := s.locks.lock(c.ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.lockedSettled(c.ctx, k); err != nil {
		s.log.Error("completing a pending manifest before a succession", "error", err)
	}
	ctx, cancel := detach(c.ctx)
	defer cancel()
	receipt, err := s.vault.Submit(ctx, vaultapi.Submission{Envelope: env.Raw})
	if err != nil {
		return err
	}
	changes, err := s.once(ctx, nil, chainKey(k.owner, link.Seq), env.Raw)
	if err != nil {
		return err
	}
	news := false // everybody may have an accepted one, and send it again
	if d != nil && int(d.Generation)-2 >= len(known) {
		at := key(kindSuccession, id[:], policies.U64(d.Generation))
		record, err := encodeRecord(at, 1, api.Succession{Document: env.Raw, Receipt: receipt})
		if err != nil {
			return err
		}
		before := len(changes)
		if changes, err = s.once(ctx, changes, at, record.Value); err != nil {
			return err
		}
		news = len(changes) > before
	}
	if len(changes) > 0 {
		if err := s.store.Commit(ctx, changes...); err != nil {
			return fmt.Errorf("keeping a succession: %w", err)
		}
	}
	if news {
		s.logins.end(id)
		s.sessions.end(policies.ReaderID(id))
	}
	return c.json(http.StatusOK, receipt)
}

func (s *Storefront) getSuccessions(c *call) error {
	var id policies.IdentityID
	if err := id.UnmarshalText([]byte(c.Param("id"))); err != nil {
		return err
	}
	if err := s.openly(c.ctx, id); err != nil {
		return err
	}
	_, list, err := s.line(c.ctx, id)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, api.Successions{Successions: list})
}

// end ends all sessions of a reader.
func (l *sessions) end(reader policies.ReaderID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.of[reader]) > 0 {
		l.drop(l.of[reader][0])
	}
}
