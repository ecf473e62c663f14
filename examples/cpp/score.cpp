// Scores two events with a prediction server: libcurl and C++17, nothing else.
//
//     score URL MODEL            for example: score http://127.0.0.1:8000 ttH
//
// The environment variable ROOTDATA_KEY holds the key of a server that wants one. The scores are printed, one event
// a line. Exit status: 0, 1 where there is no server or it fails, 2 where the server says that the request is wrong.
//
// Events travel as columns, in the format application/vnd.rootdata.columns: "RDCOLS1\n", the length of a header, the
// header in JSON, and then the numbers as they lie in memory, each part padded to 8 bytes. Answers come in the same
// format. The branches below are those of the example models; put those of your own model in `example_events`.

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr char kType[] = "application/vnd.rootdata.columns";
constexpr char kMagic[] = "RDCOLS1\n";
constexpr int kAttempts = 5;
constexpr long kTimeoutMs = 30000;

// What the server says no to; anything else that goes wrong is a std::runtime_error.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Events, column by column. Objects of a collection lie one after the other; `counts` says how many an event has.
struct Events {
  struct Flat {
    std::string name;
    std::vector<float> values;  // one an event
  };
  struct Jagged {
    std::string name;
    std::vector<float> values;  // as many as the counts of its collection say
  };
  struct Collection {
    std::string name;
    std::vector<std::int32_t> counts;  // one an event
    std::vector<Jagged> columns;
  };
  std::size_t size = 0;
  std::vector<Flat> flat;
  std::vector<Collection> collections;
};

// A value that an event does not have is NaN.
Events example_events() {
  Events events;
  events.size = 2;
  events.flat = {{"HT", {431.0F, 99.5F}}, {"MET_pt", {20.0F, 130.0F}}};
  events.collections = {{"jets",
                         {3, 1},
                         {{"Jet_pt", {120.0F, 80.0F, 31.0F, 45.0F}}, {"Jet_eta", {0.1F, -1.2F, 2.2F, 0.7F}}}}};
  return events;
}

// Writing

template <typename T>
void append(std::string& body, const std::vector<T>& values) {
  static_assert(std::numeric_limits<float>::is_iec559 && sizeof(T) == 4);
  for (const T& value : values) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) body += static_cast<char>(bits >> shift & 0xFF);  // little endian
  }
  body.resize((body.size() + 7) / 8 * 8, '\0');
}

std::string column(const std::string& name, const std::string& counts) {
  const std::string last = counts.empty() ? "" : R"(,"counts":")" + counts + '"';
  return R"({"name":")" + name + R"(","dtype":"<f4")" + last + "}";
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ",") + word;
  return text;
}

std::string encode(const Events& events) {
  std::vector<std::string> counts;
  std::vector<std::string> columns;
  for (const auto& flat : events.flat) columns.push_back(column(flat.name, ""));
  for (const auto& collection : events.collections) {
    counts.push_back('"' + collection.name + '"');
    for (const auto& jagged : collection.columns) columns.push_back(column(jagged.name, collection.name));
  }
  const std::string header = R"({"num_events":)" + std::to_string(events.size) + R"(,"counts":[)" + joined(counts) +
                             R"(],"columns":[)" + joined(columns) + "]}";
  std::string body = kMagic;
  for (int shift = 0; shift < 32; shift += 8) body += static_cast<char>(header.size() >> shift & 0xFF);
  body += header;
  body.resize((body.size() + 7) / 8 * 8, '\0');
  for (const auto& collection : events.collections) append(body, collection.counts);
  for (const auto& flat : events.flat) append(body, flat.values);
  for (const auto& collection : events.collections)
    for (const auto& jagged : collection.columns) append(body, jagged.values);
  return body;
}

// Reading

std::uint32_t little_endian(const std::string& body, std::size_t at) {
  if (body.size() < at + 4) throw std::runtime_error("the answer is cut short");
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(body[at + static_cast<std::size_t>(i)]);
  return value;
}

// All scores are float32: a column starts wherever the one before it ends, so the header only has to say how many
// columns there are.
std::vector<std::vector<float>> decode(const std::string& body, std::size_t size) {
  const std::string magic = kMagic;
  if (body.compare(0, magic.size(), magic) != 0) throw std::runtime_error("the answer is in another format");
  const std::size_t start = magic.size() + 4;
  const std::string header = body.substr(start, little_endian(body, magic.size()));
  std::vector<std::vector<float>> columns;
  std::size_t offset = (start + header.size() + 7) / 8 * 8;
  for (auto at = header.find("\"dtype\""); at != std::string::npos; at = header.find("\"dtype\"", at + 1)) {
    std::vector<float> values(size);
    for (std::size_t i = 0; i < size; ++i) {
      const std::uint32_t bits = little_endian(body, offset + 4 * i);
      std::memcpy(&values[i], &bits, sizeof bits);
    }
    offset = (offset + 4 * size + 7) / 8 * 8;
    columns.push_back(std::move(values));
  }
  return columns;
}

// HTTP

class Connection {
 public:
  Connection() : easy_(curl_easy_init(), curl_easy_cleanup) {
    if (!easy_) throw std::runtime_error("libcurl can't be used");
  }

  // Posts columns and returns the body of the answer; where the server has too much to do, or has just gone, again.
  std::string post(const std::string& url, const std::string& body, const std::string& key) {
    std::string problem;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      if (attempt > 0) std::this_thread::sleep_for(pause(attempt));
      const CURLcode code = send(url, body, key);
      if (code != CURLE_OK) {
        problem = url + ": " + curl_easy_strerror(code) + "; check the address, and that the server runs";
        continue;
      }
      if (status_ < 300) return answer_;
      problem = url + ": " + std::to_string(status_) + " " + answer_;
      if (status_ != 502 && status_ != 503 && status_ != 504) break;
    }
    if (status_ >= 400 && status_ < 500) throw Refused(problem);
    throw std::runtime_error(problem);
  }

 private:
  using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

  static void add(Headers& headers, const std::string& line) {
    curl_slist* longer = curl_slist_append(headers.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    static_cast<void>(headers.release());  // it is part of the longer list
    headers.reset(longer);
  }

  static std::size_t write(char* data, std::size_t size, std::size_t number, void* target) {
    static_cast<std::string*>(target)->append(data, size * number);
    return size * number;
  }

  CURLcode send(const std::string& url, const std::string& body, const std::string& key) {
    Headers headers(nullptr, curl_slist_free_all);
    add(headers, std::string("Content-Type: ") + kType);
    add(headers, std::string("Accept: ") + kType);
    add(headers, "X-Timeout-Ms: " + std::to_string(kTimeoutMs));
    if (!key.empty()) add(headers, "Authorization: Bearer " + key);
    answer_.clear();
    status_ = 0;
    CURL* easy = easy_.get();
    curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.data());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Connection::write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer_);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, kTimeoutMs);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    const CURLcode code = curl_easy_perform(easy);
    if (code == CURLE_OK) curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status_);
    return code;
  }

  // What the server asked for with Retry-After, at most 30 s, and otherwise ever longer.
  std::chrono::milliseconds pause(int attempt) const {
    curl_off_t seconds = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_RETRY_AFTER, &seconds);
    return std::max(std::chrono::milliseconds(std::min<curl_off_t>(seconds, 30) * 1000),
                    std::chrono::milliseconds(100 << attempt));
  }

  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy_;
  std::string answer_;
  long status_ = 0;
};

struct Library {  // libcurl, for as long as it lives
  Library() { curl_global_init(CURL_GLOBAL_DEFAULT); }
  ~Library() { curl_global_cleanup(); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
};

void score(const std::string& server, const std::string& model) {
  const char* key = std::getenv("ROOTDATA_KEY");
  const Events events = example_events();
  const Library library;
  Connection connection;
  const std::string body =
      connection.post(server + "/models/" + model + "/predict", encode(events), key == nullptr ? "" : key);
  const auto columns = decode(body, events.size);
  std::cout.precision(9);
  for (std::size_t event = 0; event < events.size; ++event) {
    for (std::size_t i = 0; i < columns.size(); ++i) std::cout << (i > 0 ? "\t" : "") << columns[i][event];
    std::cout << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: score URL MODEL, for example: score http://127.0.0.1:8000 ttH\n";
    return 2;
  }
  try {
    score(argv[1], argv[2]);
    return 0;
  } catch (const Refused& error) {
    std::cerr << "score: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "score: " << error.what() << '\n';
    return 1;
  }
}
