package auth

import (
	"container/list"
	"crypto/rand"
	"strconv"
	"sync"
	"time"
)

const (
	// maxSimpleTokens bounds the memory of tokens. Beyond it, the one that has not been used for longest
	// goes; with etcd's cost of a login, that many take longer to get than they live.
	maxSimpleTokens = 1 << 16
	// tokenLetters is how many letters a token has, which is 91 bits.
	tokenLetters = 16
	// ttlResolution is how exactly lifetimes are kept, so that a use need not always be written down.
	ttlResolution = time.Second
)

// simpleTokens are random and mean something to this process only.
type simpleTokens struct {
	ttl  time.Duration
	most int // tokens

	mu     sync.RWMutex
	tokens map[string]*list.Element // guarded by mu
	byUse  *list.List               // of *simpleToken, the one used last at the back; guarded by mu
	index  uint64                   // of the token made last; guarded by mu
}

type simpleToken struct {
	token, user string
	used        time.Time // guarded by simpleTokens.mu
}

func newSimpleTokens(ttl time.Duration, most int) *simpleTokens {
	return &simpleTokens{ttl: ttl, most: most, tokens: map[string]*list.Element{}, byUse: list.New()}
}

// issue implements tokens. A token looks like etcd's, where the number is an index of the log.
func (s *simpleTokens) issue(user string, _ uint64) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for oldest := s.byUse.Front(); oldest != nil; oldest = s.byUse.Front() {
		if len(s.tokens) < s.most && !s.expired(oldest, now) {
			break
		}
		s.remove(oldest)
	}
	s.index++
	token := randomLetters(tokenLetters) + "." + strconv.FormatUint(s.index, 10)
	s.tokens[token] = s.byUse.PushBack(&simpleToken{token: token, user: user, used: now})
	return token, nil
}

// randomLetters returns n letters, all equally likely.
func randomLetters(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters := make([]byte, 0, n)
	for random := make([]byte, n); len(letters) < n; {
		_, _ = rand.Read(random) // never fails
		for _, b := range random {
			// What is left above the multiples would make some letters likelier.
			if int(b) < 256/len(alphabet)*len(alphabet) && len(letters) < n {
				letters = append(letters, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(letters)
}

// resolve implements tokens. The token lives on for another ttl.
func (s *simpleTokens) resolve(token string, revision uint64) (Identity, bool) {
	now := time.Now()
	s.mu.RLock()
	e := s.tokens[token]
	if e == nil || s.expired(e, now) {
		s.mu.RUnlock()
		return Identity{}, false
	}
	t := entry(e)
	fresh := now.Sub(t.used) < ttlResolution
	s.mu.RUnlock()
	if !fresh {
		s.touch(e, now)
	}
	return Identity{User: t.user, Revision: revision}, true
}

// touch notes that a token was used, if it is still there.
func (s *simpleTokens) touch(e *list.Element, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := entry(e)
	if s.tokens[t.token] == e && now.After(t.used) {
		t.used = now
		s.byUse.MoveToBack(e)
	}
}

// expired tells whether a token is too old. The caller holds mu, for reading at least.
func (s *simpleTokens) expired(e *list.Element, now time.Time) bool {
	return now.Sub(entry(e).used) >= s.ttl+ttlResolution
}

func entry(e *list.Element) *simpleToken { return e.Value.(*simpleToken) }

// remove deletes a token. The caller holds mu.
func (s *simpleTokens) remove(e *list.Element) {
	delete(s.tokens, s.byUse.Remove(e).(*simpleToken).token)
}

// forget implements tokens.
func (s *simpleTokens) forget(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.tokens {
		if entry(e).user == user {
			s.remove(e)
		}
	}
}

// clear implements tokens.
func (s *simpleTokens) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
	s.byUse.Init()
}
