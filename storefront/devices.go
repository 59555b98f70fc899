package storefront

import (
	"bytes"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/pairing"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/gate"
)

// Meetings of two devices live in memory only: a restart ends them, and the person begins again.
const (
	meetingLifetime = 10 * time.Minute
	meetingOver     = time.Minute // the same once the profile was fetched, for an answer that was lost
	maxMeetings     = 1000
	meetingsEach    = 8  // of new devices at one network address
	maxProfiles     = 32 // on their way at once
)

// meeting is what two devices left under a code.
type meeting struct {
	network string
	subject policies.IdentityID // of the first device's login
	expires time.Time
	parts   map[string][]byte // by the last part of the path
}

type meetings struct {
	mu sync.Mutex
	of map[pairing.Code]*meeting
}

// leave keeps a part. What comes before it must be there; an offer begins a meeting.
func (m *meetings) leave(code pairing.Code, part, after, network string, subject policies.IdentityID, body []byte, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	profiles, mine := 0, 0
	for c, one := range m.of {
		if now.After(one.expires) {
			delete(m.of, c)
			continue
		}
		if one.parts["profile"] != nil {
			profiles++
		}
		if one.network == network {
			mine++
		}
	}
	one := m.of[code]
	switch {
	case one != nil && one.parts[part] != nil:
		if !bytes.Equal(one.parts[part], body) {
			return policies.CodeExists
		}
		return nil
	case after == "" && (len(m.of) >= maxMeetings || mine >= meetingsEach), part == "profile" && profiles >= maxProfiles:
		return rateLimited()
	case after == "":
		one = &meeting{network: network, expires: now.Add(meetingLifetime), parts: map[string][]byte{}}
		m.of[code] = one
	case one == nil || one.parts[after] == nil:
		return policies.CodeNotFound
	case part == "profile" && subject != one.subject:
		return problem.New(policies.CodeUnauthorized, "another device answered the new one")
	}
	if part == "answer" {
		one.subject = subject
	}
	one.parts[part] = bytes.Clone(body)
	return nil
}

// get is a part that was left. With the profile a meeting is over, and makes room for others.
func (m *meetings) get(code pairing.Code, part string, now time.Time) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.of[code]
	if one == nil || now.After(one.expires) {
		return nil, false
	}
	body, ok := one.parts[part]
	if over := now.Add(meetingOver); ok && part == "profile" && over.Before(one.expires) {
		one.expires = over
	}
	return body, ok
}

// device reads the path of a part.
func (c *call) device() (code pairing.Code, part string, err error) {
	code, err = pairing.ParseCode(c.Param("code"))
	return code, path.Base(c.FullPath()), err
}

// postDevice takes a part of a meeting, which must come after another one.
func postDevice[T any](after string, check func(*T, policies.IdentityID) error) func(*Storefront, *call) error {
	return func(s *Storefront, c *call) error {
		code, part, err := c.device()
		if err != nil {
			return err
		}
		in := new(T)
		if err := envelope.Decode(c.body, in); err != nil {
			return err
		}
		if err := check(in, c.subject); err != nil {
			return err
		}
		if err := s.meetings.leave(code, part, after, gate.Network(c.Request.RemoteAddr).String(), c.subject, c.body, s.now()); err != nil {
			return err
		}
		return c.json(http.StatusCreated, struct{}{})
	}
}

var (
	postDeviceOffer = postDevice("", func(o *api.DeviceOffer, _ policies.IdentityID) error {
		if o.Commitment.IsZero() {
			return problem.New(policies.CodeMalformed, "an offer without a commitment")
		}
		return nil
	})
	postDeviceAnswer = postDevice("offer", func(a *pairing.Answer, by policies.IdentityID) error {
		if policies.IdentityID(a.Owner) != by {
			return problem.New(policies.CodeUnauthorized, "the answer is of another person than the login")
		}
		return a.Validate()
	})
	postDeviceOpening = postDevice("answer", func(o *pairing.Opening, _ policies.IdentityID) error { return o.Validate() })
	postDeviceProfile = postDevice("opening", func(p *api.DeviceProfile, _ policies.IdentityID) error {
		if len(p.Sealed) == 0 || len(p.Sealed) > api.MaxDeviceProfile {
			return policies.CodeTooLarge
		}
		return nil
	})
)

func (s *Storefront) getDevice(c *call) error {
	code, part, err := c.device()
	if err != nil {
		return err
	}
	body, ok := s.meetings.get(code, part, s.now())
	if !ok {
		return policies.CodeNotFound
	}
	return c.json(http.StatusOK, jsontext.Value(body))
}
