package storefront

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// Logins and challenges live in memory only. A restart ends them all, which costs every client one new login.
const (
	challengeLifetime = time.Minute
	maxChallenges     = 10_000
	loginsOfOne       = 32     // of one identity at the same time; the oldest gives way
	noncesOfOne       = 50_000 // remembered for one login; the rate limit stays far below
)

// challenge waits for its one answer.
type challenge struct {
	pre.Challenge
	secret  *pre.ChallengeSecret
	key     []byte // that it was made for
	expires time.Time
}

// login is a fresh key that signs requests for a subject.
type login struct {
	subject policies.IdentityID
	key     envelope.SessionPublicKey
	expires time.Time

	mu     sync.Mutex
	nonces map[policies.Nonce]time.Time // until when the request that carries it could be accepted again
	sweep  int                          // at how many nonces those that are over are let go
}

type logins struct {
	mu         sync.Mutex
	challenges map[policies.DocumentID]*challenge
	waiting    []policies.DocumentID // of challenges, oldest first, with gaps where one was taken
	open       map[policies.DocumentID]*login
	of         map[policies.IdentityID][]policies.DocumentID // oldest first
}

func (l *logins) init() {
	l.challenges = make(map[policies.DocumentID]*challenge)
	l.open = make(map[policies.DocumentID]*login)
	l.of = make(map[policies.IdentityID][]policies.DocumentID)
}

// addChallenge lets go of challenges whose time is over and, if there are too many, of the oldest: whoever cannot answer must not keep
// those who can from logging in.
func (l *logins) addChallenge(id policies.DocumentID, c *challenge, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 {
		old, ok := l.challenges[l.waiting[0]]
		if ok && len(l.waiting) < maxChallenges && !now.After(old.expires) {
			break
		}
		if ok {
			old.secret.Zero()
			delete(l.challenges, l.waiting[0])
		}
		l.waiting = l.waiting[1:]
	}
	l.challenges[id] = c
	l.waiting = append(l.waiting, id)
}

// takeChallenge hands a challenge out once, whatever the answer will be.
func (l *logins) takeChallenge(id policies.DocumentID) (*challenge, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.challenges[id]
	delete(l.challenges, id)
	return c, ok
}

func (l *logins) add(id policies.DocumentID, one *login, now time.Time, most int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= most {
		for old, o := range l.open {
			if now.After(o.expires) {
				l.drop(old)
			}
		}
		if len(l.open) >= most {
			oldest, ok := fromMost(l.of)
			if !ok {
				return rateLimited()
			}
			l.drop(oldest)
		}
	}
	if mine := l.of[one.subject]; len(mine) >= loginsOfOne {
		l.drop(mine[0])
	}
	l.open[id] = one
	l.of[one.subject] = append(l.of[one.subject], id)
	return nil
}

// fromMost is the first of whoever has most, if that is more than one: when there is no room, those make it who take most.
func fromMost[K, V comparable](of map[K][]V) (first V, ok bool) {
	most := 1
	for _, mine := range of {
		if len(mine) > most {
			most, first, ok = len(mine), mine[0], true
		}
	}
	return first, ok
}

// drop is called with mu held.
func (l *logins) drop(id policies.DocumentID) {
	subject := l.open[id].subject
	delete(l.open, id)
	rest := slices.DeleteFunc(l.of[subject], func(o policies.DocumentID) bool { return o == id })
	if len(rest) == 0 {
		delete(l.of, subject)
		return
	}
	l.of[subject] = rest
}

// end ends all logins of a subject.
func (l *logins) end(subject policies.IdentityID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range slices.Clone(l.of[subject]) {
		l.drop(id)
	}
}

// endOne ends a login, if it has not ended.
func (l *logins) endOne(id policies.DocumentID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[id]; ok {
		l.drop(id)
	}
}

func (l *logins) find(id policies.DocumentID, now time.Time) (*login, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, ok := l.open[id]
	if ok && !now.Before(one.expires) {
		l.drop(id)
		return nil, false
	}
	return one, ok
}

// use remembers a nonce for as long as a request that carries it could be accepted, and refuses one that it remembers.
func (l *login) use(nonce policies.Nonce, created, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, used := l.nonces[nonce]; used {
		return policies.CodeReplay
	}
	if len(l.nonces) >= l.sweep {
		for n, until := range l.nonces {
			if now.After(until) {
				delete(l.nonces, n)
			}
		}
		if len(l.nonces) >= noncesOfOne {
			return rateLimited()
		}
		l.sweep = min(2*len(l.nonces)+256, noncesOfOne)
	}
	l.nonces[nonce] = created.Add(api.SignatureLifetime + policies.ClockSkew)
	return nil
}

// names are the authorities that this server answers to.
type names struct {
	configured  []string
	certificate *x509.Certificate
}

// authority is the name by which the client addressed this server, in lower case, if it is one of ours.
func (n *names) authority(r *http.Request) (string, error) {
	authority := strings.ToLower(r.Host)
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = strings.Trim(authority, "[]")
	}
	known := len(authority) <= 255 && slices.ContainsFunc(n.configured, func(name string) bool {
		name = strings.ToLower(name)
		return name == authority || name == host
	})
	if !known && len(n.configured) == 0 {
		known = len(authority) <= 255 && n.certificate.VerifyHostname(host) == nil
	}
	if !known {
		return "", problem.New(policies.CodeUnauthorized, "the request was made for a server of another name")
	}
	return authority, nil
}

func (s *Storefront) postChallenge(c *call) error {
	var in api.ChallengeRequest
	if err := envelope.Decode(c.body, &in); err != nil {
		return err
	}
	if in.Key == (envelope.SessionPublicKey{}) {
		return problem.New(policies.CodeMalformed, "a login needs a fresh key")
	}
	server, err := s.names.authority(c.Request)
	if err != nil {
		return err
	}
	line, _, err := s.line(c.ctx, in.Subject)
	if err != nil {
		return err
	}
	loginKey := line.Newest().LoginKey
	ct, secret, err := pre.NewChallenge(loginKey, nil)
	if err != nil {
		return problem.New(policies.CodeMalformed, "the identity's login key is not a key")
	}
	now := s.now()
	one := &challenge{
		Challenge: pre.Challenge{Server: server, Subject: in.Subject, Ciphertext: ct, Nonce: policies.NewNonce(), FreshKey: in.Key},
		secret:    secret, key: loginKey, expires: now.Add(challengeLifetime),
	}
	id := policies.NewDocumentID()
	s.logins.addChallenge(id, one, now)
	return c.json(http.StatusOK, api.LoginChallenge{
		ID: id, Ciphertext: ct, Nonce: one.Nonce, Expires: one.expires.Unix(),
	})
}

func (s *Storefront) postLogin(c *call) error {
	var in api.LoginAnswer
	if err := envelope.Decode(c.body, &in); err != nil {
		return err
	}
	// One answer to each challenge. That the name is still the one it was given under is checked besides: the proof is over it.
	one, ok := s.logins.takeChallenge(in.ID)
	if !ok {
		return problem.New(policies.CodeUnauthorized, "no such challenge; begin the login again")
	}
	defer one.secret.Zero()
	now := s.now()
	server, err := s.names.authority(c.Request)
	if err != nil {
		return err
	}
	if now.After(one.expires) || server != one.Server {
		return problem.New(policies.CodeUnauthorized, "no such challenge; begin the login again")
	}
	if err := one.secret.Verify(&one.Challenge, in.Proof); err != nil {
		return problem.New(policies.CodeUnauthorized, "the answer is not the one of this identity's login key")
	}
	out := api.Login{ID: policies.NewDocumentID(), Expires: now.Add(s.limits.Login).Unix()}
	err = s.logins.add(out.ID, &login{
		subject: one.Subject, key: one.FreshKey, expires: time.Unix(out.Expires, 0), nonces: make(map[policies.Nonce]time.Time),
	}, now, s.limits.Logins)
	if err != nil {
		return err
	}
	// What is deleted has its key for a while longer. The mark is older than the end of logins, so a login that does not see it is ended by that.
	if err := s.closed(c.ctx, one.Subject); err != nil {
		s.logins.end(one.Subject)
		return err
	}
	// A challenge of before a succession outlives the end of the logins that came with it. The succession was kept before that end, as the mark was.
	switch line, _, err := s.line(c.ctx, one.Subject); {
	case err != nil:
		s.logins.endOne(out.ID)
		return err
	case !bytes.Equal(line.Newest().LoginKey, one.key):
		s.logins.endOne(out.ID)
		return problem.New(policies.CodeUnauthorized, "the identity's keys were replaced meanwhile; begin the login again")
	}
	return c.json(http.StatusOK, out)
}

// authenticate reads the body and returns whose login signed it together with method, authority, path and query, and charges it to them.
// The login is looked up before the body is read, so that strangers cannot have megabytes read.
func (s *Storefront) authenticate(c *call, limit int64) (policies.IdentityID, []byte, error) {
	none := policies.IdentityID{}
	sig, err := api.ParseSignature(c.Request)
	if err != nil {
		return none, nil, err
	}
	now := s.now()
	one, ok := s.logins.find(sig.Login, now)
	if !ok {
		return none, nil, problem.New(policies.CodeUnauthorized, "the login is unknown or has ended")
	}
	if _, err := s.names.authority(c.Request); err != nil {
		return none, nil, err
	}
	body, err := s.readBody(c, limit, "l"+string(one.subject[:]))
	if err != nil {
		return none, nil, err
	}
	if err := sig.Verify(c.Request, body, one.key, now); err != nil {
		return none, nil, err
	}
	// The rate comes before the nonce, so that it bounds what is remembered.
	if !s.callers.allow("l"+string(one.subject[:]), now, s.limits.LoginRate, s.limits.LoginBurst, 1) {
		return none, nil, rateLimited()
	}
	if err := one.use(sig.Nonce, sig.Created, now); err != nil {
		return none, nil, err
	}
	return one.subject, body, nil
}

// sessions are those that the vault accepted through this process: an early check that keeps junk from the vault, and no more. One that
// is not here, after a restart say, is opened anew by its reader.
type sessions struct {
	mu   sync.RWMutex
	open map[policies.Hash]openSession
	of   map[policies.ReaderID][]policies.Hash // oldest first
}

type openSession struct {
	reader  policies.ReaderID
	expires int64 // Unix seconds
}

func (l *sessions) init() {
	l.open = make(map[policies.Hash]openSession)
	l.of = make(map[policies.ReaderID][]policies.Hash)
}

func (l *sessions) add(id policies.Hash, one openSession, now time.Time, most int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= most {
		for old, o := range l.open {
			if now.Unix() >= o.expires {
				l.drop(old)
			}
		}
		if len(l.open) >= most {
			oldest, ok := fromMost(l.of)
			if !ok {
				return rateLimited()
			}
			l.drop(oldest)
		}
	}
	if _, again := l.open[id]; !again {
		l.of[one.reader] = append(l.of[one.reader], id)
	}
	l.open[id] = one
	return nil
}

// drop is called with mu held.
func (l *sessions) drop(id policies.Hash) {
	reader := l.open[id].reader
	delete(l.open, id)
	rest := slices.DeleteFunc(l.of[reader], func(o policies.Hash) bool { return o == id })
	if len(rest) == 0 {
		delete(l.of, reader)
		return
	}
	l.of[reader] = rest
}

func (l *sessions) find(id policies.Hash, now time.Time) (openSession, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	one, ok := l.open[id]
	if !ok || now.Unix() >= one.expires {
		return openSession{}, policies.CodeSession
	}
	return one, nil
}

func (s *Storefront) postSession(c *call) error {
	env, err := envelope.Parse(c.body)
	if err != nil {
		return err
	}
	d, err := policies.Decode[policies.Session](env)
	if err != nil {
		return err
	}
	if policies.IdentityID(d.Reader) != c.subject {
		return problem.New(policies.CodeUnauthorized, "the session is of another reader than the one who logged in")
	}
	if err := d.Live(s.now()); err != nil {
		return err
	}
	receipt, err := s.submit(c.ctx, env)
	if err != nil {
		return err
	}
	one := openSession{reader: d.Reader, expires: d.Expires}
	if err := s.sessions.add(env.Hash, one, s.now(), s.limits.Sessions); err != nil {
		return err
	}
	return c.json(http.StatusOK, receipt)
}

var errNotIdentity = errors.New("the stored identity is not the one its key names")
